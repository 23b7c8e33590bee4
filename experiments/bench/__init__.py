"""`fl bench`: our engine, Flower's own and two peers on the same work, in one sitting."""
