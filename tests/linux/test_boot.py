# SPDX-License-Identifier: Apache-2.0
"""``guestmem boot``: what it takes for a kernel, what it packs, and, with QEMU and a kernel, what comes of a command."""

import gzip
import io
import itertools
import lzma
import os
import platform
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.linux.boot import deb, initramfs, machine, package, userland
from guestmem.linux.boot.errors import Cannot
from guestmem.linux.boot.initramfs import LINK, Entry
from guestmem.linux.boot.package import Kernel
from requires import require

BZIMAGE = bytearray(0x400)
BZIMAGE[0x202:0x206] = b"HdrS"
struct.pack_into("<H", BZIMAGE, 0x20E, 0x100)
BZIMAGE[0x300:0x320] = b"9.9.9-test (somebody) #1".ljust(0x20, b"\0")
IMAGE = bytes(0x38) + b"ARM\x64" + bytes(64) + b"Linux version 9.9.9-arm (somebody)"


def module(*needs: str) -> bytes:
    """What stands for a module."""
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


def make_deb(path: Path, files: dict[str, bytes], packing: str = "xz") -> Path:
    """A package of Debian with files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = data.getvalue()
    if packing == "zst":
        zstandard = pytest.importorskip("zstandard")
        packed = zstandard.ZstdCompressor().compress(packed)
    else:
        packed = {"xz": lzma, "gz": gzip}[packing].compress(packed)
    with path.open("wb") as stream:
        stream.write(b"!<arch>\n")
        for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar.{packing}", packed)):
            stream.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            stream.write(content + b"\n" * (len(content) % 2))
    return path


KERNEL_FILES = {
    "boot/vmlinuz-9": bytes(BZIMAGE),
    "lib/modules/9/kernel/fs/ext4/ext4.ko.xz": lzma.compress(module("mbcache", "jbd2")),
    "lib/modules/9/kernel/fs/mbcache.ko": module(),
    "lib/modules/9/kernel/fs/jbd2/jbd2.ko": module("mbcache"),
    "lib/modules/9/kernel/arch/x86/kvm/kvm-amd.ko": module("kvm", "ccp"),
    "lib/modules/9/kernel/arch/x86/kvm/kvm.ko": module("irqbypass"),
    "lib/modules/9/kernel/virt/lib/irqbypass.ko": module(),
    "lib/modules/9/kernel/drivers/net/ne2k.ko": module(),
}


@pytest.mark.parametrize("packing", ["xz", "gz", "zst"])
def test_a_package_has_the_kernel_and_its_modules_in_the_order_of_their_needs(tmp_path: Path, packing: str) -> None:
    found = package.find(make_deb(tmp_path / "linux.deb", KERNEL_FILES, packing))
    assert (found.machine, found.release, found.image) == ("x86_64", "9.9.9-test", bytes(BZIMAGE))
    assert [module.name for module in found.modules] == ["mbcache", "jbd2", "ext4", "irqbypass", "kvm", "kvm_amd"]
    assert found.modules[2].data == module("mbcache", "jbd2")


def test_the_package_that_only_names_others_is_found_with_these(tmp_path: Path) -> None:
    modules = {name: data for name, data in KERNEL_FILES.items() if ".ko" in name}
    image = make_deb(tmp_path / "linux-image-9_9-1_amd64.deb", {"usr/share/doc/x": b""})
    with pytest.raises(Cannot, match=r"no kernel in it: .* apt-get download linux-binary-9 linux-modules-9"):
        package.find(image)
    make_deb(tmp_path / "linux-binary-9_9-1_amd64.deb", {"usr/lib/modules/9/vmlinuz": bytes(BZIMAGE)})
    make_deb(tmp_path / "linux-modules-9_9-1_amd64.deb", modules)
    assert len(package.find(image).modules) == 6
    assert package.find(tmp_path).release == "9.9.9-test"


def test_an_unpacked_package_and_a_module_of_ones_own(tmp_path: Path) -> None:
    for name, data in KERNEL_FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    own = tmp_path.parent / "kvm.ko"
    own.write_bytes(module() + b"own")
    names = {one.name: one for one in package.find(tmp_path, [own]).modules}
    assert names["kvm"].data.endswith(b"own")
    assert "irqbypass" not in names


def test_an_image_says_its_machine_and_release(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(IMAGE)
    assert package.find(tmp_path / "Image")[:2] == ("aarch64", "9.9.9-arm")
    packed = gzip.compress(IMAGE)
    zboot = bytearray(64) + packed
    zboot[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", zboot, 8, 64, len(packed))
    zboot[24:29] = b"gzip\0"
    (tmp_path / "zboot").write_bytes(zboot)
    assert package.find(tmp_path / "zboot") == Kernel("aarch64", "9.9.9-arm", IMAGE, ())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x7fELF", "an ELF file: give arch/x86/boot/bzImage or arch/arm64/boot/Image"),
        (b"text", "no kernel for x86-64 or arm64: give a bzImage, an Image, or a package of one"),
        (b"MZ\0\0zimg" + bytes(16) + b"zstd\0" + bytes(40), "a kernel packed with zstd for EFI: give its Image"),
    ],
    ids=["ELF", "text", "zstd"],
)
def test_what_is_no_kernel_is_refused_in_a_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Cannot, match=says):
        package.find(tmp_path / "file")


def test_a_package_that_is_not_whole_is_refused_in_a_line(tmp_path: Path) -> None:
    path = make_deb(tmp_path / "linux.deb", KERNEL_FILES)
    whole = path.read_bytes()
    for cut in (b"", whole[:4], whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(cut)
        with pytest.raises(Cannot, match=r"linux.deb: (no package of Debian|the package)"):
            list(deb.files(path, lambda name: True))


def test_two_kernels_are_one_too_many(tmp_path: Path) -> None:
    for name in ("vmlinuz-1", "vmlinuz-2"):
        (tmp_path / name).write_bytes(BZIMAGE)
    with pytest.raises(Cannot, match="2 kernels"):
        package.find(tmp_path)


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("no cpio (apt-get install cpio)")
    entries = [Entry("a/b/c", b"first"), Entry("a/b/c", b"12345", 0o755), Entry("link", b"a/b/c", LINK), Entry("empty", b"")]
    with (tmp_path / "archive").open("wb") as stream:
        initramfs.write(entries, stream)
    argv = ["cpio", "-id", "--quiet", "-F", str(tmp_path / "archive")]
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "a/b/c").read_bytes() == b"12345"
    assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o755
    assert os.readlink(tmp_path / "link") == "a/b/c"


def test_the_guest_has_python_guestmem_and_what_was_added(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x")
    names = {entry.name for entry in userland.entries(platform.machine(), None, [tmp_path / "mine.py"])}
    assert {"init", "usr/bin/python3", "usr/bin/guestmem", "usr/lib/guestmem/guestmem/cli/main.py", "work/mine.py"} <= names
    assert any(name.endswith("argparse.py") for name in names)
    assert not any("site-packages" in name for name in names)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
    with pytest.raises(Cannot, match=f"a Python for {other} is missing: dpkg --add-architecture"):
        list(userland.entries(other, None, []))
    with pytest.raises(Cannot, match="no Python in it"):
        list(userland.entries(other, tmp_path, []))


def test_what_qemu_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, wanted in (("x86_64", "qemu-system-x86"), ("aarch64", "qemu-system-arm")):
        with pytest.raises(Cannot, match=f"is missing: apt-get install {wanted}"):
            machine.arguments(Kernel(name, "", b"", ()), machine.Machine(), tmp_path, (1, 2, 3, 4))


def test_a_machine_has_what_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    wanted = machine.Machine(memory=1 << 30, cpus=3, accel="tcg", append="kvm_amd.npt=0")
    argv = machine.arguments(Kernel("x86_64", "", b"", ()), wanted, tmp_path, (7, 8, 9, 10))
    said = dict(itertools.pairwise(argv))
    assert (said["-m"], said["-smp"], said["-accel"], said["-cpu"]) == ("1024M", "3", "tcg,thread=single", "max")
    assert said["-append"].endswith("panic=-1 loglevel=4 kvm_amd.npt=0")
    assert [argv[n + 1] for n, word in enumerate(argv) if word == "-add-fd"] == [f"fd={n + 7},set={n}" for n in range(4)]
    foreign = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
    with pytest.raises(Cannot, match="use --accel tcg"):
        machine.accelerator(foreign, "kvm")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["/nowhere", "--", "guestmem", "probe"], "/nowhere: cannot be read: No such file or directory"),
        (["/nowhere"], "no command to run: write guestmem boot KERNEL -- guestmem probe"),
        (["--memory", "much", "/nowhere", "--", "x"], "'much' is no size"),
        (["--save", "/nowhere", "/nowhere", "--", "x"], "/nowhere: no directory: make it"),
    ],
)
def test_a_mistake_is_a_line(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["boot", *argv]) == 2
    assert says in capsys.readouterr().err


# ---- with QEMU and a kernel


def kernel_at_hand() -> Path:
    """Of GUESTMEM_KERNEL: what guestmem boot takes, for this machine's architecture."""
    require("qemu", "kernel")
    return Path(os.environ["GUESTMEM_KERNEL"])


def test_output_status_and_files_come_back(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    program = (
        "import os, sys; print('out'); print('err', file=sys.stderr); open('left', 'w').write(os.environ['TMPDIR']); sys.exit(7)"
    )
    assert cli.main(["boot", "--save", str(tmp_path), str(kernel_at_hand()), "--", "python3", "-c", program]) == 7
    out, err = capfdbinary.readouterr()
    assert (out, err) == (b"out\n", b"err\n")
    assert (tmp_path / "left").read_text() == "/scratch"


def test_what_was_written_before_a_panic_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    program = "print('before', flush=True); open('/proc/sysrq-trigger', 'w').write('c')"
    assert cli.main(["boot", str(kernel_at_hand()), "--", "python3", "-c", program]) == 3
    out, err = capfd.readouterr()
    assert out == "before\n"
    assert "Kernel panic - not syncing: sysrq triggered crash" in err
    assert err.endswith("guestmem: the kernel went down before the command ended\n")


def test_a_command_that_does_not_end_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["boot", "--timeout", "20s", str(kernel_at_hand()), "--", "python3", "-c", "import time; time.sleep(1000)"]
    assert cli.main(argv) == 3
    assert "no end within 20 s: give more with --timeout" in capfd.readouterr().err
