"""What lies in the store and whose it is: listed, tidied, carried to another machine and back."""
