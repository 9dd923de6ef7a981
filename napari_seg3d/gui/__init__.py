"""Door 2: the window. The only room that knows napari and Qt."""
