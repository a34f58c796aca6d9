"""What an annotator does while working: typing a request, clicking, drawing a box."""
