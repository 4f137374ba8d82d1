"""Files from the internet: resumed, checked, cached."""
