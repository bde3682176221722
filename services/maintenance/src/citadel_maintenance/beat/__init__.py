"""The periodic schedule: one of several candidates leads, and every slot is published once."""
