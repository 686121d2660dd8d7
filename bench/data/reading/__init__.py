"""Files of any layout, read by one documented rule or refused by name: rows, labels, captions, images."""
