"""The periodic scheduler: of several candidates one leads, and every slot is published once."""
