"""Keys and values of what a Llama has read, so that it reads nothing twice."""

from copy import copy

import torch
from torch import Tensor

from framepred.predictor.config import LlamaConfig


class KVCache:
    """Keys and values of every layer, preallocated: (layers, 2, B, kv heads, capacity, head dim).

    `length` positions are filled. Where a cache was made by `fork`, the first of them may be one `prefix` that all
    rows read, (layers, 2, 1, kv heads, P, head dim), and `data` holds what follows it.
    """

    def __init__(self, config: LlamaConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (config.num_hidden_layers, 2, batch, config.num_key_value_heads, capacity, config.head_dim)
        self.data = like.new_zeros(shape)
        self.prefix = self.data[:, :, :1, :, :0]
        self.length = 0
        self._slots: Tensor | None = None
        self._rows: Tensor | None = None
        self._end = 0
        # Positions that other caches read too: nothing else may be written there.
        self._shared = 0

    @property
    def capacity(self) -> int:
        return self.prefix.shape[4] + self.data.shape[4]

    @property
    def own(self) -> int:
        """Positions filled behind the prefix."""
        return self.length - self.prefix.shape[4]

    @property
    def rows(self) -> int:
        return self.data.shape[2]

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on; what other caches share of it stays as it is."""
        if length < self.prefix.shape[4]:
            self.data = self._empty(self.rows, self.capacity - length)
            self.prefix = self.prefix[:, :, :, :, :length]
        elif length < self._shared:
            self.data, self._shared = self.data.clone(), 0
        self.length = length

    def fork(self, rows: Tensor) -> "KVCache":
        """Return a cache whose rows go on from these rows (R,) of this one.

        Of a cache of one row all share what is stored, this one too. Otherwise they share the prefix.
        """
        made = copy(self)
        if self.rows > 1 or len(rows) == 1:
            made.data, made._shared = self.data[:, :, rows], 0
            return made
        made.prefix = self.data[:, :, :, :, : self.own]
        if self.prefix.shape[4]:
            made.prefix = torch.cat([self.prefix, made.prefix], 4)
        self._shared = max(self._shared, self.length)
        made.data, made._shared = self._empty(len(rows), self.capacity - self.length), 0
        return made

    def _empty(self, rows: int, capacity: int) -> Tensor:
        layers, two, _, heads, _, dim = self.data.shape
        return self.data.new_zeros(layers, two, rows, heads, capacity, dim)

    def place(self, length: int, at: Tensor | None = None, rows: Tensor | None = None) -> int:
        """Say where the next `length` positions are written, and return where the last ends.

        That is behind what is there, or from each one's `at` (R,) in these `rows` (R,) alone.
        """
        if at is None:
            self._slots, self._end = None, self.own + length
        else:
            own = at - self.prefix.shape[4]
            self._slots = (own[:, None] + torch.arange(length, device=at.device))[:, None]
            # A GPU would be waited for to know where the last ends; and as it is, shapes stay as they are.
            self._end = self.data.shape[4] if own.is_cuda else int(own.max()) + length
        self._rows = rows
        return self.prefix.shape[4] + self._end

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (R, kv heads, L, head dim) at their place; return their rows' own up to the last."""
        store, end = self.data[layer], self._end
        if self._slots is None:
            keys, values = store[:, :, :, :end].unbind(0)
            keys[:, :, end - k.shape[2] :] = k
            values[:, :, end - k.shape[2] :] = v
            return keys, values
        rows = torch.arange(len(k), device=k.device) if self._rows is None else self._rows
        place = rows[:, None, None], torch.arange(k.shape[1], device=k.device)[:, None], self._slots
        store[0][place], store[1][place] = k, v
        # All rows are read where they lie; some are copied, which pays where others need no more work.
        own = store[:, :, :, :end] if self._rows is None else store[:, rows, :, :end]
        return own[0], own[1]

    def visible(self, length: int, group: int) -> Tensor | None:
        """What is added to scores of the rows' own positions, (1 or B, 1, L, T): -inf at what is to come; or None.

        Behind a prefix, (…, group · L, T): queries of the `group` heads that share keys stand one after the other.
        """
        if self._slots is not None:
            seen = torch.arange(self._end, device=self.data.device) <= self._slots[..., None]
        elif length == 1 or not self.length:
            return None
        else:
            seen = torch.ones(1, 1, length, self._end, dtype=torch.bool, device=self.data.device)
            seen = seen.tril_(self._end - length)
        # As numbers, once: every layer's attention would make them of truth values again.
        mask = self.data.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        return mask.repeat(1, 1, group, 1) if self.prefix.shape[4] else mask
