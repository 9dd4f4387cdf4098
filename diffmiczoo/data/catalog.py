"""The data sets that the package knows by name: one row each, of what is true of the data whatever is trained on them.

To add one, add a row; if its published archives are to be read as they are unpacked, add a function to
`diffmiczoo.data.downloads` as well.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Licence of weights that come from images which may not be used commercially.
NON_COMMERCIAL = "cc-by-nc-4.0"


@dataclass(frozen=True)
class DatasetInfo:
    """One data set.

    Attributes:
        name: what the package calls it: the tag of weights, and what follows "diffmicv2_" in the short names.
        title: kind of images and of classes, for cards and lists.
        class_names: in the order of the outputs of the package's weights.
        class_labels: what they mean in words, in the same order.
        data_license: of the images, in words.
        weights_license: of weights that are trained on them, an identifier of the Hub.
        task: "multiclass" or "multilabel".
        ordinal: whether the classes are grades, from the lowest to the highest.
        label_tables: names or patterns of the table of labels in the folder of its unpacked archives, by which
            `diffmiczoo.data.downloads` recognises it; empty where the archives are not read as they are.
        label_columns: what the table must have as well, where its name alone says little.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    class_labels: tuple[str, ...]
    data_license: str
    weights_license: str = "apache-2.0"
    task: str = "multiclass"
    ordinal: bool = False
    label_tables: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()


DATASETS: dict[str, DatasetInfo] = {
    dataset.name: dataset
    for dataset in (
        DatasetInfo(
            name="ham10000",
            title="dermatoscopy, 7 kinds of pigmented skin lesions",
            class_names=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
            class_labels=(
                "actinic keratosis or Bowen's disease",
                "basal cell carcinoma",
                "benign keratosis-like lesion",
                "dermatofibroma",
                "melanoma",
                "melanocytic nevus",
                "vascular lesion",
            ),
            data_license="CC BY-NC 4.0",
            weights_license=NON_COMMERCIAL,
            # As the archives of Kaggle and Dataverse call it.
            label_tables=("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"),
        ),
        DatasetInfo(
            name="aptos2019",
            title="fundus photographs, 5 grades of diabetic retinopathy",
            class_names=("no_dr", "mild", "moderate", "severe", "proliferative"),
            class_labels=(
                "no diabetic retinopathy",
                "mild diabetic retinopathy",
                "moderate diabetic retinopathy",
                "severe diabetic retinopathy",
                "proliferative diabetic retinopathy",
            ),
            data_license="competition data, research use only",
            weights_license=NON_COMMERCIAL,
            ordinal=True,
            label_tables=("train.csv",),
            label_columns=("id_code", "diagnosis"),
        ),
        DatasetInfo(
            name="busi",
            title="breast ultrasound, 3 classes",
            class_names=("benign", "malignant", "normal"),
            # Other people's classes may have these three names too, of whatever tissue.
            class_labels=("benign lesion", "malignant lesion", "normal tissue"),
            data_license="CC BY 4.0",
        ),
        DatasetInfo(
            name="chestxray14",
            title="frontal chest X-rays, 14 findings, multi-label",
            class_names=(
                "Atelectasis",
                "Cardiomegaly",
                "Effusion",
                "Infiltration",
                "Mass",
                "Nodule",
                "Pneumonia",
                "Pneumothorax",
                "Consolidation",
                "Edema",
                "Emphysema",
                "Fibrosis",
                "Pleural_Thickening",
                "Hernia",
            ),
            class_labels=(
                "atelectasis",
                "cardiomegaly",
                "effusion",
                "infiltration",
                "mass",
                "nodule",
                "pneumonia",
                "pneumothorax",
                "consolidation",
                "edema",
                "emphysema",
                "fibrosis",
                "pleural thickening",
                "hernia",
            ),
            data_license="NIH Clinical Center, free use with citation",
            task="multilabel",
            label_tables=("Data_Entry_2017*.csv",),
        ),
        DatasetInfo(
            name="pmg2000",
            title="placental ultrasound, 4 grades",
            class_names=("grade_0", "grade_1", "grade_2", "grade_3"),
            class_labels=("grade 0", "grade 1", "grade 2", "grade 3"),
            data_license="in-house data of the paper's authors, not public",
            ordinal=True,
        ),
    )
}


def class_labels(class_names: tuple[str, ...]) -> dict[str, str]:
    """Returns class name → what it means in words, for the classes of a data set of the package; else nothing.

    All classes have to be the data set's, in its order: "df" alone may mean anything.
    """
    labels = (each.class_labels for each in DATASETS.values() if each.class_names == class_names)
    return dict(zip(class_names, next(labels, ()), strict=False))
