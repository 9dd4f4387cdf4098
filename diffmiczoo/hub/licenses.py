"""The licence of weights: what the Hub has to know of it, and the file that goes beside them."""

from __future__ import annotations

from typing import Any

#: Identifiers of the Hub whose text everybody finds; any other needs an address.
LINKS = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "bsd-3-clause": "https://opensource.org/license/bsd-3-clause",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
    "cc-by-nc-sa-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    "cc-by-nc-nd-4.0": "https://creativecommons.org/licenses/by-nc-nd/4.0/legalcode",
}

OTHER = "other"
LICENSE_FILE = "LICENSE"


def license_problems(texts: dict[str, Any]) -> list[str]:
    """Returns what `card.json` lacks on the licence, a line each.

    Args:
        texts: what the file holds.
    """
    name = texts.get("license")
    if not isinstance(name, str) or not name or name in LINKS:
        return []
    needed = ("license_name", "license_link") if name == OTHER else ("license_link",)
    why = "is missing: the license is" if name == OTHER else "is missing: no address is known for the license"
    return [f"card.json: {field!r} {why} {name!r}" for field in needed if not texts.get(field)]


def license_text(name: str, license: str, link: str, title: str, data_license: str, method: str) -> str:
    """Returns what `LICENSE` beside weights says.

    Args:
        name: of the weights.
        license: of the weights, an identifier of the Hub.
        link: to its text; "" for the address that is known.
        title: of the licence, "" for its identifier.
        data_license: of the images that they were trained on.
        method: what to cite.
    """
    return (
        f"Weights {name}\n\nLicence: {title or license}\nFull text: {link or LINKS[license]}\n\n"
        f"They were trained on images under this licence: {data_license}. Its terms may bind those who use what was\n"
        "made from the images as well; read them before any use beyond research.\n\n"
        f"Cite: {method.replace('*', '')}\n\n"
        "The weights come as they are, without warranty of any kind. They are no medical device and must not guide\n"
        "the care of any person. The code that runs them, diffmiczoo, is under the Apache License 2.0.\n"
    )
