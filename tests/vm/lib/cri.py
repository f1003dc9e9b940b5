"""Kubernetes' side of containerd: its socket, its messages, pods and containers.

Owns containerd's configuration while a test runs, the bridge network of its
pods, and a log folder; puts all back at the end. Messages are made from
Debian's copy of the interface's definition; there is no kubelet and no crictl.
"""

import atexit
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import image
import tap

PROTO = Path("/usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto")
CONFIG = Path("/etc/containerd/config.toml")
NETWORK = Path("/etc/cni/net.d/10-test.conflist")
IMAGE = "docker.io/library/busybox:latest"
PAUSE = "registry.local/pause:test"
RUNTIME = shutil.which(os.environ.get("RUNTIME", "locule"))
MACHINES = "/usr/local/bin/locule-vm"
IS_LOCULE = Path(RUNTIME).name not in ("runc", "crun")
WORK = Path(tempfile.mkdtemp(prefix="cri-", dir="/var/tmp"))

# The handler `tested` is the runtime under test with systemd's scopes, `tested-fs` with its own cgroups, `tested-vm` makes
# each pod a virtual machine.
CONFIG_TEXT = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "tested"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
      BinaryName = "{RUNTIME}"
      SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested-fs]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested-fs.options]
      BinaryName = "{RUNTIME}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested-vm]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested-vm.options]
      BinaryName = "{MACHINES}"
      SystemdCgroup = true
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"""
NETWORK_TEXT = """{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""


def run(*words, **options):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options).stdout


def messages():
    """The interface's messages, as Python classes."""
    text = "".join(line for line in PROTO.open() if "gogoproto" not in line)
    (WORK / "cri_api.proto").write_text(text)
    run("protoc", f"--proto_path={WORK}", f"--python_out={WORK}", "cri_api.proto")
    sys.path.insert(0, str(WORK))
    return importlib.import_module("cri_api_pb2")


def wrong(error):
    """What the caller of a failed call is told."""
    return f"{error.code().name}: {error.details()}"


class Cri:
    """A client: `cri.RunPodSandbox(config=…)` is that call, with its request's fields."""

    def __init__(self):
        import grpc

        self.grpc = grpc
        self.api = messages()
        self.channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")
        self.pods = []

    def __getattr__(self, name):
        service = "ImageService" if "Image" in name else "RuntimeService"
        answer = getattr(self.api, f"{name}Response")
        call = self.channel.unary_unary(
            f"/runtime.v1.{service}/{name}", lambda request: request.SerializeToString(), answer.FromString
        )
        return lambda **fields: call(getattr(self.api, f"{name}Request")(**fields), timeout=300, wait_for_ready=True)

    def refused(self, name, pattern, call, **fields):
        """The call fails, and its text matches; the text."""
        try:
            call(**fields)
        except self.grpc.RpcError as error:
            tap.like(name, wrong(error), pattern)
            return wrong(error)
        tap.ok(name, False, "it succeeded")
        return ""

    # --- pods ---

    def machine(self, name, **fields):
        """A pod that is a virtual machine."""
        return self.pod(name, "tested-vm", **fields)

    def pod(self, name, handler="tested", linux=None, **fields):
        """A running pod: (its id, its configuration)."""
        (WORK / name).mkdir(exist_ok=True)
        linux = {"cgroup_parent": "/test" if handler == "tested-fs" else "/test.slice", **(linux or {})}
        config = {
            "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "test"},
            "hostname": name,
            "log_directory": str(WORK / name),
            "linux": linux,
            **fields,
        }
        pod = self.RunPodSandbox(config=config, runtime_handler=handler).pod_sandbox_id
        self.pods.append(pod)
        return pod, config

    def pod_is_ready(self, pod):
        return self.PodSandboxStatus(pod_sandbox_id=pod).status.state == self.api.SANDBOX_READY

    def remove_pod(self, pod):
        self.StopPodSandbox(pod_sandbox_id=pod)
        self.RemovePodSandbox(pod_sandbox_id=pod)
        self.pods.remove(pod)

    # --- containers ---

    def create(self, pod, name, *command, **fields):
        """A created container of a pod; its id."""
        config = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": list(command),
            "log_path": f"{name}.log",
            **fields,
        }
        return self.CreateContainer(pod_sandbox_id=pod[0], config=config, sandbox_config=pod[1]).container_id

    def start(self, pod, name, *command, **fields):
        container = self.create(pod, name, *command, **fields)
        self.StartContainer(container_id=container)
        return container

    def status(self, container):
        return self.ContainerStatus(container_id=container).status

    def state(self, container):
        """RUNNING, EXITED, …"""
        return self.api.ContainerState.Name(self.status(container).state).removeprefix("CONTAINER_")

    def exec(self, container, *command, timeout=120):
        """(exit code, standard output, standard error)"""
        answer = self.ExecSync(container_id=container, cmd=list(command), timeout=timeout)
        return answer.exit_code, answer.stdout.decode(), answer.stderr.decode()

    def pid(self, container):
        """Init's pid on the host."""
        import json

        info = self.ContainerStatus(container_id=container, verbose=True).info["info"]
        return json.loads(info)["pid"]

    def sandbox_pid(self, pod):
        import json

        return json.loads(self.PodSandboxStatus(pod_sandbox_id=pod, verbose=True).info["info"])["pid"]


# A pod's options whose users are mapped to 200000 and on.
MAPPING = [{"host_id": 200000, "container_id": 0, "length": 65536}]
MAPPED = {"userns_options": {"mode": 0, "uids": MAPPING, "gids": MAPPING}}


def mapped_container(cri, pod, security):
    """A container of a pod with users of its own: root inside, 200000 outside, with a volume; its id."""
    volume = WORK / pod[1]["metadata"]["name"] / "volume"
    volume.mkdir()
    os.chown(volume, 200000, 200000)
    mounts = [{"container_path": "/volume", "host_path": str(volume)}]
    container = cri.start(pod, "main", "sleep", "1000", linux=security, mounts=mounts)
    tap.same("a pod with mapped users: root outside is 200000", os.stat(f"/proc/{cri.pid(container)}").st_uid, 200000)
    tap.same("root inside", cri.exec(container, "id", "-u")[1], "0\n")
    tap.same("which owns the image's files", cri.exec(container, "stat", "-c", "%u %g", "/bin/busybox", "/volume")[1], "0 0\n0 0\n")
    tap.same("and writes a volume", cri.exec(container, "touch", "/volume/new", "/dev/shm/new", "/new")[0], 0)
    tap.same("as 200000", os.stat(volume / "new").st_uid, 200000)
    return container


def answers(address):
    """Whether a container at (host, port) says `answer`."""
    try:
        with socket.create_connection(address, 5) as talk:
            return talk.recv(10) == b"answer\n"
    except OSError:
        return False


def cgroup_of(pid):
    return Path("/sys/fs/cgroup" + Path(f"/proc/{pid}/cgroup").read_text().split("::", 1)[1].strip())


def namespace(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def processes(pattern):
    """Pids of processes whose command line has these words."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if pattern in words and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def left(name):
    """What there still is of a pod or container that is removed: nothing."""
    found = [str(path) for root in ("/run/containerd/runc/k8s.io", "/run/containerd/io.containerd.runtime.v2.task/k8s.io")
             for path in Path(root).glob(f"{name}*")]  # fmt: skip
    found += [line for line in open("/proc/self/mountinfo") if name in line]
    found += [root for root, _, _ in os.walk("/sys/fs/cgroup") if name in root]
    return found + [f"process {pid}" for pid in processes(f"-id {name}")]


def connect():
    """containerd with the runtime under test, images and a network; all is put back when the test ends."""
    before, client = CONFIG.read_text(), Cri()

    def put_back():
        for pod in list(client.pods):
            try:
                client.remove_pod(pod)
            except client.grpc.RpcError as error:
                print(f"# removing pod {pod}: {wrong(error)}")
        client.channel.close()
        CONFIG.write_text(before)
        NETWORK.unlink()
        subprocess.run(["systemctl", "restart", "containerd"], check=False)
        subprocess.run(["ip", "link", "delete", "test0"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(WORK)

    atexit.register(put_back)
    CONFIG.write_text(CONFIG_TEXT)
    NETWORK.parent.mkdir(parents=True, exist_ok=True)
    NETWORK.write_text(NETWORK_TEXT)
    run("systemctl", "restart", "containerd")
    present = run("ctr", "-n", "k8s.io", "images", "list", "-q").split()
    for name, command in ((IMAGE, ["sh"]), (PAUSE, ["sleep", "1000000"])):
        if name not in present:
            image.write(WORK / "image.tar", name, command)
            run("ctr", "-n", "k8s.io", "images", "import", str(WORK / "image.tar"))
    return client
