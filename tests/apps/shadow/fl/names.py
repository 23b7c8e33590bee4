NAME = "the app's own fl"
