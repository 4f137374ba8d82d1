"""Packs the compiled llama.cpp and the Python files around it into a wheel that holds each library once."""

import base64
import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from progress import StepFailed

# Part of the cache key: raise it when the same compiled files are packed in another way.
LAYOUT = 2

TAG = "py3-none-linux_x86_64"
EPOCH = (1980, 1, 1, 0, 0, 0)

# Each library under the one name by which it is looked for: llama_cpp opens libllama.so; the others are looked for by
# the loader under their SONAMEs, and by nobody else. With a second name for a file, a second copy would be loaded.
LINKED = {
    "libllama.so": "libllama.so",
    "libggml.so": "libggml.so.0",
    "libggml-base.so": "libggml-base.so.0",
}
VARIANTS = "libggml-cpu-*.so"
LOGITS = "librbee_logits.so"

# For pictures, for a web server of another make, and a second ggml binding: their libraries are not built.
LEFT_OUT = {"llava_cpp.py", "mtmd_cpp.py", "_ggml.py"}
UNNEEDED = ("numpy", "diskcache")
MUST_NOT_NEED = (b"libstdc++.so", b"libgomp.so")


def pack(source: Path, libraries: Path, version: str, out: Path) -> Path:
    """Writes the wheel into `out`, byte for byte the same for the same input."""
    info = f"llama_cpp_python-{version}.dist-info"
    files = {f"llama_cpp/{path.name}": path.read_bytes() for path in _python_files(source)}
    files |= {f"llama_cpp/lib/{name}": data for name, data in _libraries(libraries).items()}
    files |= {
        f"{info}/METADATA": _metadata(source / "PKG-INFO"),
        f"{info}/WHEEL": (f"Wheel-Version: 1.0\nGenerator: rbee\nRoot-Is-Purelib: false\nTag: {TAG}\n".encode()),
        f"{info}/licenses/LICENSE.md": (source / "LICENSE.md").read_bytes(),
        f"{info}/licenses/llama.cpp/LICENSE": (source / "vendor" / "llama.cpp" / "LICENSE").read_bytes(),
    }
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = out / f"llama_cpp_python-{version}-{TAG}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            member = zipfile.ZipInfo(name, EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o755 if name.startswith("llama_cpp/lib/") else 0o644) << 16
            archive.writestr(member, data)
    return path


def _python_files(source: Path) -> list[Path]:
    package = source / "llama_cpp"
    files = [path for path in package.glob("*.py") if path.name not in LEFT_OUT]
    return [*files, package / "py.typed"]


def _libraries(folder: Path) -> dict[str, bytes]:
    found = {name: folder / built for built, name in LINKED.items()} | {LOGITS: folder / LOGITS}
    variants = {path.name: path for path in folder.glob(VARIANTS)}
    if not variants:
        raise StepFailed("building the engine failed: no processor variants (libggml-cpu-*) came out")
    libraries = {name: path.read_bytes() for name, path in (found | variants).items()}
    for name, data in libraries.items():
        for unwanted in MUST_NOT_NEED:
            if unwanted in data:
                raise StepFailed(f"building the engine failed: {name} needs {unwanted.decode()}")
    return libraries


def _metadata(info: Path) -> bytes:
    """The archive's own metadata without the dependencies that rbee never imports."""
    kept = []
    for name, value in HeaderParser().parsestr(info.read_text("utf-8")).items():
        needless = name == "Requires-Dist" and (value.startswith(UNNEEDED) or "extra ==" in value)
        if not needless and name != "Provides-Extra":
            kept.append(f"{name}: {value}\n")
    return "".join(kept).encode()


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
