"""A receiver of reports that holds only the public key."""
