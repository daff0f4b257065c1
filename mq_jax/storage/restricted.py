"""Reading pickles of others, which could run code of their own."""

import pickle
from collections.abc import Mapping
from typing import Any, ClassVar


class RestrictedUnpickler(pickle.Unpickler):
    """Builds what a table allows: any other global of a pickle could be a call to anything.

    Attributes:
      allowed: what stands for a global, by (module, name).
      refusal: the message for another one, with a place for its name.
    """

    allowed: ClassVar[Mapping[tuple[str, str], Any]]
    refusal: ClassVar[str]

    def find_class(self, module, name):
        """What stands for the allowed global of this name."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(self.refusal.format(f"{module}.{name}"))
        return self.allowed[module, name]
