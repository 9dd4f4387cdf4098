"""A model against labelled images: metrics beside its DCG's, tables of predictions, tests of significance."""
