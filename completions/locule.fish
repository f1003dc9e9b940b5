# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_locule_global_optspecs
    string join \n root= data= log= log-format= debug systemd-cgroup cgroup-manager= rootless= h/help v/version
end

function __fish_locule_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_locule_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_locule_using_subcommand
    set -l cmd (__fish_locule_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c locule -n "__fish_locule_needs_command" -l root -d 'Directory of the containers\' state, on a tmpfs (default: /run/locule, or $XDG_RUNTIME_DIR/locule for a user)' -r
complete -c locule -n "__fish_locule_needs_command" -l data -d 'Directory of machines, images and networks (default: $LOCULE_DATA, or /var/lib/locule)' -r
complete -c locule -n "__fish_locule_needs_command" -l log -d 'Append errors and warnings to FILE; errors go to standard error as well' -r
complete -c locule -n "__fish_locule_needs_command" -l log-format -d 'Form of the log\'s records' -r -f -a "text\t''
json\t''"
complete -c locule -n "__fish_locule_needs_command" -l cgroup-manager -d 'Who manages cgroups; of this and --systemd-cgroup the later counts' -r -f -a "cgroupfs\t''
systemd\t''
disabled\t''"
complete -c locule -n "__fish_locule_needs_command" -l rootless -d 'Whether missing permissions on cgroups are ignored' -r -f -a "auto\t''
true\t''
false\t''"
complete -c locule -n "__fish_locule_needs_command" -l debug -d 'Log each call and its duration, and warnings also to a JSON log'
complete -c locule -n "__fish_locule_needs_command" -l systemd-cgroup -d 'Let systemd manage cgroups: cgroupsPath is then slice:prefix:name'
complete -c locule -n "__fish_locule_needs_command" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_needs_command" -s v -l version -d 'Print the version'
complete -c locule -n "__fish_locule_needs_command" -f -a "create" -d 'Create a container from a bundle'
complete -c locule -n "__fish_locule_needs_command" -f -a "start" -d 'Start a created container, or a machine'
complete -c locule -n "__fish_locule_needs_command" -f -a "run" -d 'Create a container, start it and wait for its end'
complete -c locule -n "__fish_locule_needs_command" -f -a "exec" -d 'Run a program in a running container'
complete -c locule -n "__fish_locule_needs_command" -f -a "state" -d 'Print a container\'s state as JSON'
complete -c locule -n "__fish_locule_needs_command" -f -a "list" -d 'List containers'
complete -c locule -n "__fish_locule_needs_command" -f -a "ps" -d 'List the processes of a container'
complete -c locule -n "__fish_locule_needs_command" -f -a "kill" -d 'Send a signal to a container'
complete -c locule -n "__fish_locule_needs_command" -f -a "delete" -d 'Delete a container and what it holds'
complete -c locule -n "__fish_locule_needs_command" -f -a "pause" -d 'Suspend all processes of a container'
complete -c locule -n "__fish_locule_needs_command" -f -a "resume" -d 'Resume all processes of a paused container'
complete -c locule -n "__fish_locule_needs_command" -f -a "update" -d 'Change the limits of a container'
complete -c locule -n "__fish_locule_needs_command" -f -a "events" -d 'Print a container\'s statistics and out-of-memory events, or what happens to machines'
complete -c locule -n "__fish_locule_needs_command" -f -a "spec" -d 'Write a config.json to begin with'
complete -c locule -n "__fish_locule_needs_command" -f -a "check" -d 'Check a bundle, or this host, and touch nothing'
complete -c locule -n "__fish_locule_needs_command" -f -a "features" -d 'Print what this build supports, as JSON'
complete -c locule -n "__fish_locule_needs_command" -f -a "checkpoint" -d 'Save a running container (not there yet)'
complete -c locule -n "__fish_locule_needs_command" -f -a "restore" -d 'Restore a saved container (not there yet)'
complete -c locule -n "__fish_locule_needs_command" -f -a "completion" -d 'Print a shell\'s completion script'
complete -c locule -n "__fish_locule_needs_command" -f -a "launch" -d 'Make a machine from an image and start it'
complete -c locule -n "__fish_locule_needs_command" -f -a "ls" -d 'List machines'
complete -c locule -n "__fish_locule_needs_command" -f -a "stats" -d 'Show what running machines and containers use'
complete -c locule -n "__fish_locule_needs_command" -f -a "top" -d 'Show live what running machines and containers use, the greediest first'
complete -c locule -n "__fish_locule_needs_command" -f -a "enter" -d 'Open a login shell in a running machine'
complete -c locule -n "__fish_locule_needs_command" -f -a "stop" -d 'Stop machines'
complete -c locule -n "__fish_locule_needs_command" -f -a "restart" -d 'Stop machines and start them again'
complete -c locule -n "__fish_locule_needs_command" -f -a "rename" -d 'Give a machine another name'
complete -c locule -n "__fish_locule_needs_command" -f -a "rm" -d 'Remove machines with their data'
complete -c locule -n "__fish_locule_needs_command" -f -a "repair" -d 'Put right what a crash left of machines'
complete -c locule -n "__fish_locule_needs_command" -f -a "clone" -d 'Make a machine as a copy of another'
complete -c locule -n "__fish_locule_needs_command" -f -a "export" -d 'Write a whole machine to an archive'
complete -c locule -n "__fish_locule_needs_command" -f -a "import" -d 'Make a machine of an archive'
complete -c locule -n "__fish_locule_needs_command" -f -a "compact" -d 'Give room that machines do not use back to the host'
complete -c locule -n "__fish_locule_needs_command" -f -a "set" -d 'Change a machine, also while it runs'
complete -c locule -n "__fish_locule_needs_command" -f -a "show" -d 'Show a machine\'s definition and what of it is in force'
complete -c locule -n "__fish_locule_needs_command" -f -a "console" -d 'Attach to a machine\'s console'
complete -c locule -n "__fish_locule_needs_command" -f -a "logs" -d 'Show what a machine wrote'
complete -c locule -n "__fish_locule_needs_command" -f -a "boot" -d 'Start the machines that start with the host'
complete -c locule -n "__fish_locule_needs_command" -f -a "shutdown" -d 'Stop all machines, as the host goes down'
complete -c locule -n "__fish_locule_needs_command" -f -a "generator" -d 'Write systemd units for the machines (called by systemd)'
complete -c locule -n "__fish_locule_needs_command" -f -a "keeper" -d 'Keep a machine (called by locule itself)'
complete -c locule -n "__fish_locule_needs_command" -f -a "help" -d 'Print help on locule or on one of its commands'
complete -c locule -n "__fish_locule_needs_command" -f -a "image" -d 'Images: fetch, import, list, mount, export'
complete -c locule -n "__fish_locule_needs_command" -f -a "snapshot" -d 'Saved states of machines: create, list, restore, remove'
complete -c locule -n "__fish_locule_needs_command" -f -a "network" -d 'Networks: create, list, connect containers, publish ports'
complete -c locule -n "__fish_locule_needs_command" -f -a "openvz" -d 'OpenVZ: make machines from its containers\' configurations'
complete -c locule -n "__fish_locule_needs_command" -f -a "vm" -d 'Virtual machines: the kernels that they boot'
complete -c locule -n "__fish_locule_using_subcommand create" -s b -l bundle -d 'The bundle (default: the current directory)' -r -F
complete -c locule -n "__fish_locule_using_subcommand create" -l console-socket -d 'AF_UNIX socket that gets the master end of the terminal' -r -F
complete -c locule -n "__fish_locule_using_subcommand create" -l pid-file -d 'Write the process id to FILE, digits only' -r -F
complete -c locule -n "__fish_locule_using_subcommand create" -l pidfd-socket -d 'AF_UNIX socket that gets a pidfd of the process' -r -F
complete -c locule -n "__fish_locule_using_subcommand create" -l preserve-fds -d 'Pass N descriptors beside the standard ones and those of LISTEN_FDS' -r
complete -c locule -n "__fish_locule_using_subcommand create" -l isolation -d 'What separates it from the host; default is the annotation org.locule.isolation' -r -f -a "namespaces\t''
vm\t''"
complete -c locule -n "__fish_locule_using_subcommand create" -l vm-identity -d 'What a virtual machine believes to run on (default: kvm)' -r -f -a "kvm\t''
hyperv\t''
none\t''"
complete -c locule -n "__fish_locule_using_subcommand create" -l no-pivot -d 'Move the root mount instead of pivot_root, for a root on a ramdisk'
complete -c locule -n "__fish_locule_using_subcommand create" -l no-new-keyring -d 'Keep the caller\'s session keyring'
complete -c locule -n "__fish_locule_using_subcommand create" -l trace-startup -d 'Tell the stages of a virtual machine\'s start on standard error'
complete -c locule -n "__fish_locule_using_subcommand create" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand start" -l timeout -d 'With --wait: give up after TIME (90s, 5m); the machine goes on' -r
complete -c locule -n "__fish_locule_using_subcommand start" -l foreground -d 'Stay as the keeper of the machine until it ends'
complete -c locule -n "__fish_locule_using_subcommand start" -s w -l wait -d 'Return when the machine is ready, as boot.ready says'
complete -c locule -n "__fish_locule_using_subcommand start" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand run" -s b -l bundle -d 'The bundle (default: the current directory)' -r -F
complete -c locule -n "__fish_locule_using_subcommand run" -l console-socket -d 'AF_UNIX socket that gets the master end of the terminal' -r -F
complete -c locule -n "__fish_locule_using_subcommand run" -l pid-file -d 'Write the process id to FILE, digits only' -r -F
complete -c locule -n "__fish_locule_using_subcommand run" -l pidfd-socket -d 'AF_UNIX socket that gets a pidfd of the process' -r -F
complete -c locule -n "__fish_locule_using_subcommand run" -l preserve-fds -d 'Pass N descriptors beside the standard ones and those of LISTEN_FDS' -r
complete -c locule -n "__fish_locule_using_subcommand run" -l isolation -d 'What separates it from the host; default is the annotation org.locule.isolation' -r -f -a "namespaces\t''
vm\t''"
complete -c locule -n "__fish_locule_using_subcommand run" -l vm-identity -d 'What a virtual machine believes to run on (default: kvm)' -r -f -a "kvm\t''
hyperv\t''
none\t''"
complete -c locule -n "__fish_locule_using_subcommand run" -l no-pivot -d 'Move the root mount instead of pivot_root, for a root on a ramdisk'
complete -c locule -n "__fish_locule_using_subcommand run" -l no-new-keyring -d 'Keep the caller\'s session keyring'
complete -c locule -n "__fish_locule_using_subcommand run" -l trace-startup -d 'Tell the stages of a virtual machine\'s start on standard error'
complete -c locule -n "__fish_locule_using_subcommand run" -s d -l detach -d 'Return when the process runs'
complete -c locule -n "__fish_locule_using_subcommand run" -l keep -d 'Do not delete the container at its end'
complete -c locule -n "__fish_locule_using_subcommand run" -l no-subreaper -d 'Leave orphans of the container to the caller, in the foreground'
complete -c locule -n "__fish_locule_using_subcommand run" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand exec" -s p -l process -d 'The process as JSON' -r -F
complete -c locule -n "__fish_locule_using_subcommand exec" -s e -l env -d 'Add to the environment' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -l cwd -d 'Working directory inside' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -s u -l user -d 'User and group inside, as numbers' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -s g -l additional-gids -d 'Add a supplementary group' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -l console-socket -d 'AF_UNIX socket that gets the master end of the terminal' -r -F
complete -c locule -n "__fish_locule_using_subcommand exec" -l pid-file -d 'Write the process id to FILE, digits only' -r -F
complete -c locule -n "__fish_locule_using_subcommand exec" -l pidfd-socket -d 'AF_UNIX socket that gets a pidfd of the process' -r -F
complete -c locule -n "__fish_locule_using_subcommand exec" -l preserve-fds -d 'Pass N descriptors beside the standard ones' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -s c -l cap -d 'Add a capability' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -l apparmor -d 'AppArmor profile' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -l process-label -d 'SELinux label' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -l cgroup -d 'Existing cgroup below the container\'s own to run in' -r
complete -c locule -n "__fish_locule_using_subcommand exec" -s t -l tty -d 'Give it a terminal'
complete -c locule -n "__fish_locule_using_subcommand exec" -s d -l detach -d 'Return when the process runs'
complete -c locule -n "__fish_locule_using_subcommand exec" -l no-new-privs -d 'Set no_new_privs'
complete -c locule -n "__fish_locule_using_subcommand exec" -l ignore-paused -d 'Also in a paused container; the process starts when it is resumed'
complete -c locule -n "__fish_locule_using_subcommand exec" -l no-subreaper -d 'Accepted for old callers'
complete -c locule -n "__fish_locule_using_subcommand exec" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand state" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand list" -s f -l format -d 'Form of the list' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand list" -s q -l quiet -d 'Print names only'
complete -c locule -n "__fish_locule_using_subcommand list" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand ps" -s f -l format -d 'Form of the list' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand ps" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand kill" -s a -l all -d 'Signal every process of the container'
complete -c locule -n "__fish_locule_using_subcommand kill" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand delete" -s f -l force -d 'Kill the container first if it still runs (SIGKILL)'
complete -c locule -n "__fish_locule_using_subcommand delete" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand pause" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand resume" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand update" -s r -l resources -d 'Read the limits as JSON from FILE, or from standard input for -' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l blkio-weight -d 'Block I/O weight, 10 to 1000' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-period -d 'CPU period' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-quota -d 'CPU time a period; -1 is unlimited' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-burst -d 'Unused CPU time that may be spent later' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-share -d 'CPU shares, 2 to 262144' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-idle -d '1: only CPU time that nobody else wants' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-rt-period -d 'Real-time period (cgroup v1)' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpu-rt-runtime -d 'Real-time CPU time a period (cgroup v1)' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpuset-cpus -d 'CPUs to use, as 0-3,7' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l cpuset-mems -d 'Memory nodes to use' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l memory -d 'Memory limit' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l memory-reservation -d 'Memory that is reclaimed last' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l memory-swap -d 'Memory and swap together' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l kernel-memory -d 'Without effect' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l kernel-memory-tcp -d 'Without effect' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l pids-limit -d 'Most tasks; -1 is unlimited' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l l3-cache-schema -d 'Intel RDT schema of the L3 cache' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l mem-bw-schema -d 'Intel RDT schema of memory bandwidth' -r
complete -c locule -n "__fish_locule_using_subcommand update" -l check-before-update -d 'Refuse a memory limit below what is in use'
complete -c locule -n "__fish_locule_using_subcommand update" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand events" -l interval -d 'Time between statistics, as 500ms, 5s or 1m30s' -r
complete -c locule -n "__fish_locule_using_subcommand events" -l since -d 'Machines: begin there; a time (RFC 3339 or Unix) or how long ago (10m)' -r
complete -c locule -n "__fish_locule_using_subcommand events" -l filter -d 'Machines: only those with machine=NAME or event=WORD; may be repeated' -r
complete -c locule -n "__fish_locule_using_subcommand events" -l format -d 'Machines: form of the lines' -r -f -a "text\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand events" -l stats -d 'Print the statistics once'
complete -c locule -n "__fish_locule_using_subcommand events" -l no-stream -d 'Machines: print what is kept and end'
complete -c locule -n "__fish_locule_using_subcommand events" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand spec" -s b -l bundle -d 'The bundle (default: the current directory)' -r -F
complete -c locule -n "__fish_locule_using_subcommand spec" -l rootless -d 'For a user without privileges'
complete -c locule -n "__fish_locule_using_subcommand spec" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand check" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand features" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l image-path -d 'Directory of the image' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l work-path -d 'Directory of work files and logs' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l manage-cgroups-mode -d 'soft, full, strict or ignore' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l empty-ns -d 'Restore empty' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l parent-path -d 'Images of an earlier pre-dump' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l status-fd -d 'Descriptor for CRIU\'s readiness' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l page-server -d 'Page server' -r
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l tcp-established -d 'Allow open TCP connections'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l tcp-close -d 'Close TCP connections'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l ext-unix-sk -d 'Allow external UNIX sockets'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l shell-job -d 'Allow a terminal from outside'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l lazy-pages -d 'Restore memory on demand'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l file-locks -d 'Allow file locks'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l auto-dedup -d 'Deduplicate memory images'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l leave-running -d 'Leave the container running'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -l pre-dump -d 'Save memory only'
complete -c locule -n "__fish_locule_using_subcommand checkpoint" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand restore" -l image-path -d 'Directory of the image' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l work-path -d 'Directory of work files and logs' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l manage-cgroups-mode -d 'soft, full, strict or ignore' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l empty-ns -d 'Restore empty' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -s b -l bundle -d 'The bundle' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l console-socket -d 'Socket for the terminal' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l pid-file -d 'File for the process id' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l lsm-profile -d 'Profile of the security module' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l lsm-mount-context -d 'SELinux context of mounts' -r
complete -c locule -n "__fish_locule_using_subcommand restore" -l tcp-established -d 'Allow open TCP connections'
complete -c locule -n "__fish_locule_using_subcommand restore" -l tcp-close -d 'Close TCP connections'
complete -c locule -n "__fish_locule_using_subcommand restore" -l ext-unix-sk -d 'Allow external UNIX sockets'
complete -c locule -n "__fish_locule_using_subcommand restore" -l shell-job -d 'Allow a terminal from outside'
complete -c locule -n "__fish_locule_using_subcommand restore" -l lazy-pages -d 'Restore memory on demand'
complete -c locule -n "__fish_locule_using_subcommand restore" -l file-locks -d 'Allow file locks'
complete -c locule -n "__fish_locule_using_subcommand restore" -l auto-dedup -d 'Deduplicate memory images'
complete -c locule -n "__fish_locule_using_subcommand restore" -s d -l detach -d 'Return when the process runs'
complete -c locule -n "__fish_locule_using_subcommand restore" -l no-subreaper -d 'Leave orphans to the caller'
complete -c locule -n "__fish_locule_using_subcommand restore" -l no-pivot -d 'Move the root mount instead of pivot_root'
complete -c locule -n "__fish_locule_using_subcommand restore" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand completion" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand launch" -l pull -d 'Fetch the image: missing is when it is not there' -r -f -a "missing\t''
always\t''
never\t''"
complete -c locule -n "__fish_locule_using_subcommand launch" -l name -d 'Name of the machine' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l profile -d 'Build on a profile of /etc/locule/profiles' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l description -d 'What it is for' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l hostname -d 'Name that it has inside; by default its own' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s l -l label -d 'A word of your own' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s e -l env -d 'Add to the environment; without a value the caller\'s' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l env-file -d 'Add the lines of a file to the environment' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l entrypoint -d 'Run this program instead of the image\'s entrypoint' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s u -l user -d 'User inside, by name or number' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s w -l workdir -d 'Working directory inside' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l stop-signal -d 'Signal that asks it to end' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l stop-timeout -d 'How long it may take to end before it is killed (default: 90s)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s m -l memory -d 'Memory limit, as 512M or 2G' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l memory-reservation -d 'Memory that is reclaimed last' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l swap -d 'Swap beside the memory; 0 is none' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l cpus -d 'CPU time in processors, as 1.5' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l cpuset-cpus -d 'Which processors, as 0-3,7' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l cpu-weight -d 'Share of CPU time in contention, 1 to 10000 (default: 100)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l pids -d 'Most tasks' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l disk -d 'Size of the root file system, as 10G' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l storage -d 'How the root file system is kept' -r -f -a "overlay\t''
disk\t''"
complete -c locule -n "__fish_locule_using_subcommand launch" -s v -l volume -d 'A file or directory of the host, as /srv/www:/var/www:ro' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l tmpfs -d 'A file system in memory, as /cache:size=64m' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l device -d 'A device of the host, as /dev/kvm or /dev/ttyS0:/dev/modem:rw' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l network -d 'A network; host is the host\'s own, none is loopback alone' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l ip -d 'Address on the first network, one a family' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l mac -d 'Hardware address on the first network' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s p -l publish -d 'Lead a port of the host to the machine' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l dns -d 'A resolver' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l dns-search -d 'A domain that is searched' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l restart -d 'no, on-failure[:TIMES], always, or unless-stopped (started with the host as well)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l isolation -d 'What separates it from the host' -r -f -a "namespaces\t''
vm\t''"
complete -c locule -n "__fish_locule_using_subcommand launch" -l cap-add -d 'Grant a capability; ALL is every one' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l cap-drop -d 'Take a capability; ALL is every one' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l ulimit -d 'A resource limit, as nofile=4096' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l sysctl -d 'A sysctl of its namespaces' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l health-cmd -d 'Command of the shell that tells its health by its exit code' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l health-interval -d 'Pause between two questions (default: 30s)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l health-timeout -d 'How long an answer may take (default: 30s)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l health-retries -d 'Failures in a row until it is unhealthy (default: 3)' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -l health-start-period -d 'How long failures do not count at first' -r
complete -c locule -n "__fish_locule_using_subcommand launch" -s d -l detach -d 'Return when it runs; the default, unless an option below asks for the foreground'
complete -c locule -n "__fish_locule_using_subcommand launch" -s a -l attach -d 'Stay in the foreground'
complete -c locule -n "__fish_locule_using_subcommand launch" -s i -l interactive -d 'Stay in the foreground, and pass standard input on'
complete -c locule -n "__fish_locule_using_subcommand launch" -s t -l tty -d 'Give its program a terminal'
complete -c locule -n "__fish_locule_using_subcommand launch" -l rm -d 'Stay in the foreground, and remove the machine at its end'
complete -c locule -n "__fish_locule_using_subcommand launch" -l no-start -d 'Make it and do not start it'
complete -c locule -n "__fish_locule_using_subcommand launch" -l read-only -d 'It cannot write to its root file system'
complete -c locule -n "__fish_locule_using_subcommand launch" -l boot -d 'Start it with the host'
complete -c locule -n "__fish_locule_using_subcommand launch" -l vsock -d 'A socket to the host without a network, with --isolation vm'
complete -c locule -n "__fish_locule_using_subcommand launch" -l privileged -d 'Without a user namespace and without filters: root inside is root outside'
complete -c locule -n "__fish_locule_using_subcommand launch" -l nesting -d 'Containers can be made inside'
complete -c locule -n "__fish_locule_using_subcommand launch" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand ls" -s o -l output -d 'Columns, separated by commas' -r
complete -c locule -n "__fish_locule_using_subcommand ls" -l sort -d 'Sort by a column; with - before it the greatest first' -r
complete -c locule -n "__fish_locule_using_subcommand ls" -s f -l filter -d 'Only those that fit; may be repeated' -r
complete -c locule -n "__fish_locule_using_subcommand ls" -l format -d 'Form of the list' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand ls" -s q -l quiet -d 'Print names only'
complete -c locule -n "__fish_locule_using_subcommand ls" -s H -l no-header -d 'Leave out the head of the table'
complete -c locule -n "__fish_locule_using_subcommand ls" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand stats" -l format -d 'Form of the output' -r -f -a "table\t''
json\t''
openmetrics\t''"
complete -c locule -n "__fish_locule_using_subcommand stats" -l interval -d 'Time between two looks, as 500ms, 5s or 1m30s' -r
complete -c locule -n "__fish_locule_using_subcommand stats" -l no-stream -d 'Look once'
complete -c locule -n "__fish_locule_using_subcommand stats" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand top" -l sort -d 'What is sorted by' -r -f -a "cpu\t''
memory\t''
io\t''
network\t''
tasks\t''
pressure\t''
name\t''"
complete -c locule -n "__fish_locule_using_subcommand top" -l interval -d 'Time between two looks, as 500ms, 5s or 1m30s' -r
complete -c locule -n "__fish_locule_using_subcommand top" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand enter" -s u -l user -d 'User inside, by name or number (default: root)' -r
complete -c locule -n "__fish_locule_using_subcommand enter" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand stop" -s t -l timeout -d 'How long it may take to end before it is killed, as 90s or 5m (default: the machine\'s own)' -r
complete -c locule -n "__fish_locule_using_subcommand stop" -l kill -d 'Kill it without asking'
complete -c locule -n "__fish_locule_using_subcommand stop" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand restart" -s t -l timeout -d 'How long it may take to end before it is killed, as 90s or 5m (default: the machine\'s own)' -r
complete -c locule -n "__fish_locule_using_subcommand restart" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand rename" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand rm" -s f -l force -d 'Kill it first if it runs'
complete -c locule -n "__fish_locule_using_subcommand rm" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand repair" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand clone" -l snapshot -d 'Copy this snapshot of it' -r
complete -c locule -n "__fish_locule_using_subcommand clone" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand export" -l snapshot -d 'Write this snapshot of it' -r
complete -c locule -n "__fish_locule_using_subcommand export" -l no-image -d 'Leave the image out: where it is taken in, the image must be there'
complete -c locule -n "__fish_locule_using_subcommand export" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand import" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand compact" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand set" -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand set" -l runtime -d 'Change the running machine alone, until it ends'
complete -c locule -n "__fish_locule_using_subcommand set" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand show" -l format -d 'How to print it' -r -f -a "table\t''
toml\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand show" -l resolved -d 'With --format toml: what profiles say stands in it, too'
complete -c locule -n "__fish_locule_using_subcommand show" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand console" -l watch -d 'Look only: nothing that is typed reaches the machine'
complete -c locule -n "__fish_locule_using_subcommand console" -s w -l wait -d 'Wait for a machine that is not started'
complete -c locule -n "__fish_locule_using_subcommand console" -l no-past -d 'Leave out the last output'
complete -c locule -n "__fish_locule_using_subcommand console" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand logs" -s n -l tail -d 'The last N lines; all for every one' -r
complete -c locule -n "__fish_locule_using_subcommand logs" -l since -d 'From TIME on: a time as in the log, or how long ago (10m, 2h)' -r
complete -c locule -n "__fish_locule_using_subcommand logs" -l until -d 'Before TIME, in the same forms' -r
complete -c locule -n "__fish_locule_using_subcommand logs" -s f -l follow -d 'Go on with what comes'
complete -c locule -n "__fish_locule_using_subcommand logs" -s t -l timestamps -d 'Begin each line with its time'
complete -c locule -n "__fish_locule_using_subcommand logs" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand boot" -s j -l parallel -d 'Most machines at once (default: 4)' -r
complete -c locule -n "__fish_locule_using_subcommand boot" -s t -l timeout -d 'How long one may take (30s, 2m)' -r
complete -c locule -n "__fish_locule_using_subcommand boot" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand shutdown" -s j -l parallel -d 'Most machines at once (default: 4)' -r
complete -c locule -n "__fish_locule_using_subcommand shutdown" -s t -l timeout -d 'How long one may take (30s, 2m)' -r
complete -c locule -n "__fish_locule_using_subcommand shutdown" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand generator" -l dryrun -d 'Print what would be written'
complete -c locule -n "__fish_locule_using_subcommand generator" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand keeper" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand help" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "ls" -d 'List images'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "pull" -d 'Fetch an image from a registry'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "push" -d 'Send an image to a registry'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "import" -d 'Take an image or a root file system from a file'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "save" -d 'Write images to an archive'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "build" -d 'Build an image from a distribution\'s packages'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "inspect" -d 'Print what is known of an image, as JSON'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "history" -d 'Print how an image\'s layers came to be, the topmost first'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "tag" -d 'Give an image another name'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "rm" -d 'Remove images'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "mount" -d 'Mount an image as a root file system'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "umount" -d 'Unmount an image'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "unshare" -d 'Run a program where a user without privileges may mount images'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "commit" -d 'Make an image of what was changed in a mounted one'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "prune" -d 'Remove what no image and no mounted root file system needs'
complete -c locule -n "__fish_locule_using_subcommand image; and not __fish_seen_subcommand_from ls pull push import save build inspect history tag rm mount umount unshare commit prune verify" -f -a "verify" -d 'Check the store for damage'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from ls" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from ls" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print names only'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l platform -d 'Which of several platforms (default: this machine\'s)' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l authfile -d 'Credentials (default: as containers-auth.json(5))' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l policy -d 'What may be taken (default: as containers-policy.json(5))' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l timeout -d 'How long a registry may be silent' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -l tries -d 'Attempts of one request' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -s q -l quiet -d 'Draw no progress bar'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from pull" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -l authfile -d 'Credentials (default: as containers-auth.json(5))' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -l timeout -d 'How long a registry may be silent' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -l tries -d 'Attempts of one request' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -s q -l quiet -d 'Draw no progress bar'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from push" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from import" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from import" -l platform -d 'Which of several platforms (default: this machine\'s)' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from import" -l compression -d 'How a directory is compressed' -r -f -a "gzip\t''
zstd\t''
none\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from save" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from save" -s f -l format -d 'Who reads it: docker (and all others), or oci alone' -r -f -a "docker\t''
oci\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from save" -s o -l output -d 'The archive (default: standard output)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l include -d 'More packages, separated by commas' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l mirror -d 'Where packages come from' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l name -d 'Name that the image gets' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l minimal -d 'Without an init'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -l slim -d 'Without documentation, manual pages and translations'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -s q -l quiet -d 'Do not tell how far it is'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from inspect" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from history" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from history" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from history" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from tag" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from tag" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from rm" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from mount" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from mount" -l map -d 'Ids on the host that the image\'s ids from 0 on become' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from mount" -l state -d 'Where what is written is kept (default: in the store)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from mount" -l read-only -d 'Mount without an upper directory'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from mount" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from umount" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from umount" -l state -d 'Where what is written is kept (default: in the store)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from umount" -l keep -d 'Keep what was written'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from umount" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from unshare" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from unshare" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from commit" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from commit" -l state -d 'Where what is written is kept (default: in the store)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from commit" -l compression -d 'How the layer is compressed' -r -f -a "gzip\t''
zstd\t''
none\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from commit" -s m -l message -d 'A remark for the history' -r
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from commit" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from prune" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from prune" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from verify" -l images -d 'The store (default: $LOCULE_IMAGES, else /var/lib/locule/images, or a user\'s own below $XDG_DATA_HOME)' -r -F
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from verify" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand image; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls restore rm" -f -a "create" -d 'Save the disk and the definition of a machine'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls restore rm" -f -a "ls" -d 'List the snapshots of a machine'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls restore rm" -f -a "restore" -d 'Put the disk of a machine back to a snapshot'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and not __fish_seen_subcommand_from create ls restore rm" -f -a "rm" -d 'Remove snapshots of a machine'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from create" -l description -d 'What it is for' -r
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from restore" -l definition -d 'Put machine.toml back as well'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand snapshot; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "create" -d 'Define a network'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "ls" -d 'List networks'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "show" -d 'Show a network and its containers'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "rm" -d 'Remove networks'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "connect" -d 'Put a container on a network'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "disconnect" -d 'Take a container off a network'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "set" -d 'Change limits and firewall while containers run'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "check" -d 'Check the networks of a container'
complete -c locule -n "__fish_locule_using_subcommand network; and not __fish_seen_subcommand_from create ls show rm connect disconnect set check gc" -f -a "gc" -d 'Remove what no living container owns'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l kind -d 'How containers are wired' -r -f -a "bridge\t''
routed\t''
macvlan\t''
ipvlan\t''
device\t''
cni\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l subnet -d 'Subnet of the containers, as 10.9.0.0/24; one a family, or more' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l gateway -d 'Router of a subnet; on a bridge its address, by default the first' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l range -d 'Addresses of a subnet that are given out; by default all' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l bridge -d 'Name of the bridge\'s interface; by default lb-NETWORK' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l parent -d 'The host\'s interface under macvlan, ipvlan and device; for routed the one that answers for the containers' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l mode -d 'Of macvlan: bridge, private or vepa; of ipvlan: l2, l3 or l3s' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l mtu -d 'Largest packet' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l down -d 'What all containers together may receive, as 1gbit: guarantees are parts of it' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l up -d 'What all containers together may send' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l route -d 'A route of the containers beside the default one' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l uplink -d 'Interface that leads outside; by default those of the default routes' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l dns -d 'Name server of the containers; by default the host\'s' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l search -d 'Search domain of the containers' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l cni -d 'The CNI configuration list; the kind is then cni' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l label -d 'Something to remember with the network' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l ipv6 -d 'Choose an IPv6 subnet as well (unique local addresses)'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l no-nat -d 'Keep the containers\' addresses outside, and let the outside reach them'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l internal -d 'Let the containers reach each other and the host only'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -l no-guard -d 'Let containers send under addresses that are not theirs'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from ls" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from ls" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from ls" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print names only'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from show" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from show" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from show" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from rm" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from rm" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l ip -d 'Address of the container, of either family; by default the next free one' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l mac -d 'Hardware address of the container' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l interface -d 'Name of the interface in the container; by default the next ethN' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -s p -l publish -d 'Lead a port of the host, or a range, to the container' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l alias -d 'A name that neighbours know the container by, beside its own' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l down -d 'How fast it may receive, as 100mbit' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l up -d 'How fast it may send' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l down-min -d 'How fast it can receive in any case: a part of the network\'s rate' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l up-min -d 'How fast it can send in any case' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l namespace -d 'Network namespace, for what is no container of locule; container-id is then any name' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -l firewall -d 'Let nobody but the host reach it, except through published ports'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from connect" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from disconnect" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from disconnect" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from disconnect" -l all -d 'Take it off every network'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from disconnect" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l down -d 'How fast it may receive, as 100mbit, or none' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l up -d 'How fast it may send, or none' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l down-min -d 'How fast it can receive in any case, or none' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l up-min -d 'How fast it can send in any case, or none' -r
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -l firewall -d 'Whether nobody but the host reaches it, except through published ports' -r -f -a "on\t''
off\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from check" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from check" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from gc" -l networks -d 'Directory of the definitions (default: $LOCULE_NETWORKS, or /var/lib/locule/networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from gc" -l claims -d 'Directory of claims and records, on a tmpfs (default: $LOCULE_NETWORK_CLAIMS, or /run/locule/.networks)' -r -F
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from gc" -s f -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand network; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand openvz; and not __fish_seen_subcommand_from import" -f -a "import" -d 'Make a machine from an OpenVZ container\'s configuration'
complete -c locule -n "__fish_locule_using_subcommand openvz; and __fish_seen_subcommand_from import" -l image -d 'The image of its root file system, or host' -r
complete -c locule -n "__fish_locule_using_subcommand openvz; and __fish_seen_subcommand_from import" -l format -d 'Form of the answer' -r -f -a "table\t''
json\t''"
complete -c locule -n "__fish_locule_using_subcommand openvz; and __fish_seen_subcommand_from import" -l dry-run -d 'Make nothing; print the definition as well'
complete -c locule -n "__fish_locule_using_subcommand openvz; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c locule -n "__fish_locule_using_subcommand vm; and not __fish_seen_subcommand_from kernel" -f -a "kernel" -d 'Kernels of virtual machines: list, choose, build'
complete -c locule -n "__fish_locule_using_subcommand vm; and __fish_seen_subcommand_from kernel" -f -a "ls" -d 'List the kernels of this host, and whether virtual machines can boot them'
complete -c locule -n "__fish_locule_using_subcommand vm; and __fish_seen_subcommand_from kernel" -f -a "use" -d 'Choose the kernel that virtual machines boot'
complete -c locule -n "__fish_locule_using_subcommand vm; and __fish_seen_subcommand_from kernel" -f -a "build" -d 'Build a small kernel for virtual machines'
