"""Small Flower apps that tests run; none of them is a test or to be imported by one."""

collect_ignore_glob = ["*"]
