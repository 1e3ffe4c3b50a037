"""Old against new: two environments or images take turns on one device, and the packages at fault are found."""
