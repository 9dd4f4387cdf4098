"""What the page says: a card per picture, and what stands above and below them; plain HTML, nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from diffmiczoo.serving.answers import PictureAnswer, ServedModel
from diffmiczoo.serving.worker import Answered

#: Classes with a bar; the others are summed up in a line.
_MOST_BARS = 8

#: Of the whole page. Colours are mixed from the page's own, so that dark and light follow its theme.
STYLE = """
.dz { font-size: 1rem; line-height: 1.5; }
.dz h1 { font-size: clamp(1.1rem, 5.2vw, 1.6rem); margin: 0 0 .2rem; overflow-wrap: anywhere; }
.dz h2 { font-size: 1.05rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.dz p { margin: .3rem 0; }
.dz .notice { display: inline-block; padding: .25rem .7rem; border-radius: .4rem; font-weight: 650;
  color: #7c2415; background: #fde8e3; border: 1px solid #e5a698; }
.dz .card { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 1.2rem; padding: 1rem;
  margin: 0 0 1rem; border: 1px solid color-mix(in srgb, currentColor 22%, transparent); border-radius: .6rem; }
.dz .card > * { min-width: 0; }
.dz .card img { width: 100%; max-height: 30rem; object-fit: contain; object-position: left top; border-radius: .3rem; }
.dz .label { font-size: 1.35rem; font-weight: 650; }
.dz .faint, .dz.faint { opacity: .8; font-size: .88rem; }
.dz .warning { padding: .5rem .7rem; border-radius: .4rem; color: #5c3b00; background: #fff1cf;
  border: 1px solid #e0b85a; }
.dz .error { grid-column: 1 / -1; padding: .5rem .7rem; border-radius: .4rem; color: #7c2415; background: #fde8e3;
  border: 1px solid #e5a698; overflow-wrap: anywhere; margin: 0; }
.dz .bars { width: 100%; border-collapse: collapse; margin: .5rem 0; border: 0; }
.dz .bars tr { border: 0 !important; background: none !important; }
.dz .bars th, .dz .bars td { border: 0; padding: .16rem 0; text-align: left; font-weight: 400; background: none;
  color: inherit; }
.dz .bars th { overflow-wrap: anywhere; padding-right: .6rem; width: 42%; }
.dz .bars .given th { font-weight: 650; }
.dz .bars .value { text-align: right; width: 4.2rem; font-variant-numeric: tabular-nums; }
.dz .bar { position: relative; height: .7rem; border-radius: .35rem;
  background: color-mix(in srgb, currentColor 14%, transparent); }
.dz .bar i { display: block; height: 100%; border-radius: .35rem; background: #6b8fa8; }
.dz .given .bar i { background: #0f7fa8; }
.dz .bar b { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: currentColor; }
.dz code { font-size: .82rem; overflow-wrap: anywhere; background: none; padding: 0; }
#pictures .download { display: none; }
@media (max-width: 640px) { .dz .card { grid-template-columns: minmax(0, 1fr); padding: .8rem; } }
@media (prefers-color-scheme: dark) {
  .dz .notice, .dz .error { color: #ffd9d0; background: #4a1d14; border-color: #8a4334; }
  .dz .warning { color: #ffe6b0; background: #453200; border-color: #80621c; }
}
"""


def head_of(model: ServedModel) -> str:
    """Returns what stands above: which model, and what it is not for."""
    size = f"{model.image_size} × {model.image_size} pixels, {model.steps} steps · diffmiczoo {model.version}"
    warnings = "" if model.trained else _warning("The model is not trained: its predictions mean nothing.")
    return (
        f'<div class="dz"><h1>{escape(model.model)}</h1><p class="faint">{escape(size)}</p>'
        f'<p class="notice">{escape(model.notice)}</p>{warnings}</div>'
    )


def foot_of(model: ServedModel) -> str:
    """Returns what stands below: licences, purpose, limits, and the hash of the weights."""
    told = [("Licence of the weights", model.license), ("Licence of the images", model.data_license)]
    told += [("Meant for", model.intended_use), *(("Limit", limit) for limit in model.limits)]
    lines = "".join(f"<p>{name}: {escape(text)}</p>" for name, text in told if text)
    return f'<div class="dz faint">{lines}<p>Weights: <code>sha256 {model.weights_sha256}</code></p></div>'


def cards_of(answers: Sequence[Answered], model: ServedModel) -> str:
    """Returns a card per picture; screen readers read them when they come."""
    cards = "".join(_card(each, model) for each in answers)
    return f'<div class="dz" role="status" aria-live="polite">{cards}</div>'


def refusal(message: str) -> str:
    """Returns why none of the pictures is answered."""
    error = f'<p class="error" role="alert">{escape(message)}</p>'
    return f'<div class="dz" role="status" aria-live="polite"><div class="card">{error}</div></div>'


def _card(answered: Answered, model: ServedModel) -> str:
    answer = answered.answer
    if answer.probs is None:
        return f'<div class="card"><p class="error" role="alert">{escape(answer.error or "")}</p></div>'
    drawing = base64.b64encode(answered.drawing).decode()
    boxes = len(answer.rois or ())
    alt = f"{answer.name} with where the model looked: {boxes} regions, and the saliency of the first class"
    figure = (
        f'<div><img src="data:image/png;base64,{drawing}" alt="{escape(alt)}">'
        '<p class="faint">Boxes: the regions that the model looked at closely, bolder for more attention. Blue: '
        f"saliency of the first class. {answer.width:,} × {answer.height:,} pixels.</p></div>"
    )
    return f'<div class="card">{figure}<div>{_words(answer, model)}</div></div>'


def _words(answer: PictureAnswer, model: ServedModel) -> str:
    given = [answer.label] if isinstance(answer.label, str) else answer.label or []
    named = ", ".join(_named(label, model) for label in given) or "no finding above its threshold"
    lines = [f"<h2>{escape(answer.name)}</h2>"]
    if answer.in_distribution is False:
        text = f"This picture is unlike the training images (score {answer.ood_score:.2f}, above 1): do not rely on it."
        lines.append(_warning(text))
    lines += [f'<p class="label">{escape(named)}</p>', _bars(answer, given, model)]
    if answer.set is not None:
        cannot = ", ".join(_named(label, model) for label in answer.set)
        lines.append(f"<p>Cannot be ruled out (at the level 90 %): <strong>{escape(cannot)}</strong></p>")
    calibrated = "" if model.calibrated else " Probabilities are not calibrated."
    lines.append(f"<p>Uncertainty {answer.uncertainty:.2f} (0 sure, 1 knows nothing).{calibrated}</p>")
    if answer.in_distribution:
        lines.append(f'<p class="faint">Like the training images (score {answer.ood_score:.2f}, at most 1).</p>')
    return "".join(lines)


def _bars(answer: PictureAnswer, given: Sequence[str], model: ServedModel) -> str:
    ranked = sorted((answer.probs or {}).items(), key=lambda pair: (pair[0] not in given, -pair[1]))
    rows = "".join(_bar(name, value, name in given, model) for name, value in ranked[:_MOST_BARS])
    rest = ranked[_MOST_BARS:]
    more = f'<p class="faint">{len(rest)} more classes, at most {max(p for _, p in rest):.1%} each.</p>' if rest else ""
    return f'<table class="bars" aria-label="Probabilities"><tbody>{rows}</tbody></table>{more}'


def _bar(name: str, value: float, given: bool, model: ServedModel) -> str:
    limit = None if model.thresholds is None else model.thresholds[name]
    mark = "" if limit is None else f'<b style="left: {100 * limit:.1f}%" title="threshold {limit:.2f}"></b>'
    return (
        f'<tr class="{"given" if given else ""}"><th scope="row">{escape(_named(name, model))}</th>'
        f'<td><div class="bar"><i style="width: {100 * value:.1f}%"></i>{mark}</div></td>'
        f'<td class="value">{value:.1%}</td></tr>'
    )


def _named(label: str, model: ServedModel) -> str:
    return model.class_labels.get(label, label)


def _warning(text: str) -> str:
    return f'<p class="warning" role="alert">{escape(text)}</p>'
