"""The predictor of `diffmiczoo.engines` behind HTTP, on a page, in a Space of the Hub, and as its endpoint handler."""
