"""Pickles that hold tensors and containers of them, and nothing else. No code of a file is ever run.

Python's own unpickler calls any function that a file names. This one is a stack machine over the opcodes that `pickletools`
reads. It knows dicts, lists, tuples, numbers, texts, and the few names with which torch rebuilds tensors. Anything else in a
file raises `CheckpointError` before it is looked up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, cast

from refgen.errors import CheckpointError

FEW = 20_000  # opcodes that any file may have; a model of 100 tensors takes 5,000
RARE = 50  # bytes of a file for each opcode beyond: each makes at most one small object, so memory stays within the file's size

STORAGES = {
    "FloatStorage": ("F32", 4), "DoubleStorage": ("F64", 8), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1), "BoolStorage": ("BOOL", 1),
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """A run of numbers somewhere in the file: their format, the bytes of one number, the key of the storage, and the count."""

    dtype: str
    width: int
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, in numbers from its start, as torch has them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A name in a pickle, such as `torch.Size`."""

    module: str
    name: str


def ordered_dict(*pairs: Any) -> dict[Any, Any]:
    """`OrderedDict`, empty or of a list of pairs."""
    made: dict[Any, Any] = {}
    for key, value in pairs[0] if pairs else ():
        put(made, key, value)
    return made


def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """A tensor of torch, without gradients, hooks and metadata."""
    sizes = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(size) is not int or not 0 <= size < 2**62 for size in sizes):
        raise ValueError("a tensor without a storage, or of impossible sizes")
    if len(shape) != len(strides) or len(shape) > 64:
        raise ValueError("a tensor whose shape and strides do not fit")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise ValueError("a tensor that is longer than its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def rebuild_parameter(tensor: Any, *_: Any) -> Tensor:
    """A parameter is its tensor."""
    if not isinstance(tensor, Tensor):
        raise ValueError("a parameter that is not a tensor")  # noqa: TRY004 - one kind of error for all damage
    return tensor


CALLABLE: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): ordered_dict,
    Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    Name("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    Name("torch", "Size"): lambda sizes=(): tuple(sizes),
}
KNOWN = {*CALLABLE, *(Name("torch", name) for name in STORAGES)}


def put(made: dict[Any, Any], key: Any, value: Any) -> None:
    """Adds one entry. Keys must be texts or small numbers, because hashing deeply nested tuples never ends."""
    if not (isinstance(key, str) or (isinstance(key, int | float) and abs(key) < 2**31)):
        raise ValueError("a key that is neither a text nor a number")
    made[key] = value


def storage_of(reference: Any) -> Storage:
    """The storage of a persistent id of torch: ("storage", type, key, device, count), with None at the end in older files."""
    kind, storage, key, _, count, *view = reference
    if kind != "storage" or not isinstance(storage, Name) or storage.name not in STORAGES:
        raise ValueError("a persistent id that is not a storage")
    if view not in ([], [None]) or type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a storage that cannot be read")
    return Storage(*STORAGES[storage.name], key, count)


def read_pickle(opened: BinaryIO, where: str, size: int = 0) -> Any:
    """Reads one object from `opened`, which then stands right after it. Raises `CheckpointError`.

    `size` is the size of the whole file in bytes; it limits the length of the pickle.
    """
    try:
        return Machine(where).run(limited(opened, where, max(FEW, size // RARE)))
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ArithmeticError) as error:
        problem = f"is not a whole pickle of tensors ({str(error)[:100] or type(error).__name__})"
        raise CheckpointError(where, problem, "CKPT-16", "Fetch it again.") from None


def limited(opened: BinaryIO, where: str, most: int) -> Iterator[tuple[str, Any]]:
    """The opcodes and their arguments, up to what a checkpoint can need."""
    import pickletools  # noqa: PLC0415 - only for these files, and not with refgen itself

    for count, (opcode, argument, _) in enumerate(pickletools.genops(opened)):
        if count >= most:
            raise CheckpointError(where, "is a pickle too long for a checkpoint", "CKPT-16")
        yield opcode.name, argument


class Machine:
    """Runs one pickle. Opcodes are methods by their name; an opcode without a method is refused."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcodes: Iterator[tuple[str, Any]]) -> Any:
        """The object that is left when the pickle stops."""
        for name, argument in opcodes:
            if name == "STOP":
                return self.stack.pop()
            if name in PUSHED:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in STEPS:
                STEPS[name](self, argument)
            else:
                self.refuse(f"the opcode {name}")
        raise ValueError("no end")

    def refuse(self, what: str) -> NoReturn:
        """CKPT-16. Raises the error for anything that is neither a tensor nor a container."""
        problem = f"holds {what[:150]!s}, which is neither a tensor nor a container of tensors"
        remedy = "A pickle can run code, so refgen reads no other objects. Save the state_dict alone with torch.save."
        raise CheckpointError(self.where, problem, "CKPT-16", remedy)

    def since_mark(self) -> list[Any]:
        """Removes and returns the objects after the last mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def top(self, kind: type) -> Any:
        """The object on top, which must be of that kind."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"no {kind.__name__} to add to")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        """Puts alternating keys and values into the dict below them."""
        made = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            put(made, key, value)

    def name(self, module: Any, name: Any) -> None:
        """A name from the file. It is compared, not looked up."""
        found = Name(str(module), str(name))
        if found not in KNOWN:
            self.refuse(f"{module}.{name}")
        self.stack.append(found)

    def call(self) -> None:
        """Calls one of the allowed names with a tuple of arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Name or function not in CALLABLE or type(arguments) is not tuple:
            self.refuse("a call")
        self.stack.append(CALLABLE[function](*arguments))

    def build(self) -> None:
        """Ignores the attributes of an OrderedDict, such as `_metadata`. Refuses those of any other object."""
        state = self.stack.pop()
        if type(self.stack[-1]) is not dict or type(state) is not dict:
            self.refuse("an object with a state")

    def pop(self) -> None:
        """Removes the top object, or a mark above it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def several(self, count: int) -> None:
        """Replaces the last objects by a tuple of them."""
        if len(self.stack) < count:
            raise IndexError("too few objects")
        taken = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(taken)

    def append(self, items: list[Any]) -> None:
        """Appends the objects to the list below them."""
        self.top(list).extend(items)

    def dict_of(self, items: list[Any]) -> None:
        """Pushes a new dict of alternating keys and values."""
        self.stack.append({})
        self.set_items(items)


PUSHED = {  # opcodes that push their argument
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "DICT": lambda machine, _: machine.dict_of(machine.since_mark()),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.several(1),
    "TUPLE2": lambda machine, _: machine.several(2),
    "TUPLE3": lambda machine, _: machine.several(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "PUT": lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    "BINPUT": lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "GET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": lambda machine, names: machine.name(*cast("str", names).split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*[machine.stack.pop(), machine.stack.pop()][::-1]),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.stack.append(storage_of(machine.stack.pop())),
}
