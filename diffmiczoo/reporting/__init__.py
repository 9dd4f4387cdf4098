"""Pictures and pages: a report on a model and labelled images as one HTML page and as JSON."""
