"""Operators: each says what is to happen to which tasks; how is the batch room's business."""
