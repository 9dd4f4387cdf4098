"""What weights know about their own limits, on arrays alone: foreign pictures, prediction sets, and deferral."""
