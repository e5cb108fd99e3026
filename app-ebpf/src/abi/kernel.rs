//! What the programs know of the running kernel: where its fields and its functions' parameters are.
//!
//! User space resolves both tables from `/sys/kernel/btf/vmlinux` and hands them over as read-only globals. A field
//! that this kernel lacks is absent, and the code that would read it is pruned.

use core::marker::PhantomData;

/// The offset that stands for "this kernel has no such field".
pub const ABSENT: u32 = u32::MAX;

/// Offset of a field of type `T` within its structure, in bytes.
#[derive(Debug)]
#[repr(transparent)]
pub struct Off<T>(u32, PhantomData<T>);

impl<T> Clone for Off<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Off<T> {}

impl<T> Off<T> {
    /// No such field.
    pub const ABSENT: Self = Self(ABSENT, PhantomData);

    /// The field is this many bytes into its structure.
    #[must_use]
    pub const fn at(bytes: u32) -> Self {
        Self(bytes, PhantomData)
    }

    /// Bytes into the structure, or [`ABSENT`].
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// How to resolve one field.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Name in the table.
    pub name: &'static str,
    /// The kernel's structure.
    pub of: &'static str,
    /// The path to the field, dotted; anonymous members are walked through.
    pub path: &'static str,
    /// Bytes that the programs read there: the field is at least that wide.
    pub size: usize,
    /// The programs can do without it.
    pub optional: bool,
}

macro_rules! kernel_fields {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $of:literal . $path:literal $($optional:ident)?,)*) => {
        /// Where the kernel keeps what the programs read.
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* #[doc = concat!("`", $of, ".", $path, "`")] pub $name: Off<$ty>,)*
        }

        impl Offsets {
            /// Nothing is known.
            pub const ABSENT: Self = Self { $($name: Off::ABSENT,)* };

            /// How to resolve each field, in the order of the table.
            pub const SPEC: &'static [FieldSpec] = &[
                $(FieldSpec {
                    name: stringify!($name),
                    of: $of,
                    path: $path,
                    size: size_of::<$ty>(),
                    optional: kernel_fields!(@optional $($optional)?),
                },)*
            ];
        }
    };
    (@optional optional) => { true };
    (@optional) => { false };
}

/// A pointer in kernel memory.
pub type Ptr = u64;

kernel_fields! {
    family: u16 = "sock_common"."skc_family",
    state: u8 = "sock_common"."skc_state",
    num: u16 = "sock_common"."skc_num",
    dport: u16 = "sock_common"."skc_dport",
    saddr4: u32 = "sock_common"."skc_rcv_saddr",
    daddr4: u32 = "sock_common"."skc_daddr",
    saddr6: u64 = "sock_common"."skc_v6_rcv_saddr",
    daddr6: u64 = "sock_common"."skc_v6_daddr",
    net: Ptr = "sock_common"."skc_net.net",
    cookie: u64 = "sock_common"."skc_cookie",
    flags: u64 = "sock_common"."skc_flags",
    net_inum: u32 = "net"."ns.inum",
    protocol: u16 = "sock"."sk_protocol",
    lock_owned: u32 = "sock"."sk_lock.owned",
    shutdown: u8 = "sock"."sk_shutdown",
    err: u32 = "sock"."sk_err",
    max_ack_backlog: u32 = "sock"."sk_max_ack_backlog",
    sport: u16 = "inet_sock"."inet_sport",
    bytes_received: u64 = "tcp_sock"."bytes_received",
    bytes_sent: u64 = "tcp_sock"."bytes_sent",
    bytes_retrans: u64 = "tcp_sock"."bytes_retrans",
    segs_in: u32 = "tcp_sock"."segs_in",
    segs_out: u32 = "tcp_sock"."segs_out",
    total_retrans: u32 = "tcp_sock"."total_retrans",
    srtt_us: u32 = "tcp_sock"."srtt_us",
    is_mptcp: u8 = "tcp_sock"."is_mptcp" optional,
    mptcp_first: Ptr = "mptcp_sock"."first" optional,
    socket_sk: Ptr = "socket"."sk",
    socket_file: Ptr = "socket"."file",
    file_private: Ptr = "file"."private_data",
    task_files: Ptr = "task_struct"."files",
    task_tgid: u32 = "task_struct"."tgid",
    task_pid: u32 = "task_struct"."pid",
    task_comm: [u8; 16] = "task_struct"."comm",
    task_cred: Ptr = "task_struct"."cred",
    cred_uid: u32 = "cred"."uid.val",
    files_fdt: Ptr = "files_struct"."fdt",
    fdt_max: u32 = "fdtable"."max_fds",
    fdt_fd: Ptr = "fdtable"."fd",
    ops_sk: Ptr = "bpf_sock_ops_kern"."sk",
}

/// A parameter's position that stands for "this kernel's function has no such parameter".
pub const NO_ARG: u8 = u8::MAX;

/// How to resolve one argument.
#[derive(Clone, Copy, Debug)]
pub struct ArgSpec {
    /// Name in the table.
    pub name: &'static str,
    /// The kernel's function.
    pub function: &'static str,
    /// The parameter's name, or `None` for the return value, whose slot follows the last parameter's.
    pub parameter: Option<&'static str>,
}

macro_rules! call_args {
    ($($name:ident = $function:literal ($parameter:ident),)*) => {
        /// Which slot of the context holds which argument.
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct Args {
            $(#[doc = concat!("`", stringify!($parameter), "` of `", $function, "`")] pub $name: u8,)*
        }

        impl Args {
            /// Nothing is known.
            pub const ABSENT: Self = Self { $($name: NO_ARG,)* };

            /// How to resolve each argument, in the order of the table.
            pub const SPEC: &'static [ArgSpec] = &[
                $(ArgSpec {
                    name: stringify!($name),
                    function: $function,
                    parameter: call_args!(@parameter $parameter),
                },)*
            ];
        }
    };
    (@parameter returned) => { None };
    (@parameter $name:ident) => { Some(stringify!($name)) };
}

call_args! {
    bind4_sk = "__inet_bind" (sk),
    bind4_ret = "__inet_bind" (returned),
    bind6_sk = "__inet6_bind" (sk),
    bind6_ret = "__inet6_bind" (returned),
    sys_listen_backlog = "__sys_listen" (backlog),
    listen_sk = "__inet_listen_sk" (sk),
    listen_sk_ret = "__inet_listen_sk" (returned),
    listen_socket = "inet_listen" (sock),
    listen_socket_ret = "inet_listen" (returned),
    connect_sk = "tcp_connect" (sk),
    connect4_sk = "tcp_v4_connect" (sk),
    connect4_uaddr = "tcp_v4_connect" (uaddr),
    connect4_ret = "tcp_v4_connect" (returned),
    connect6_sk = "tcp_v6_connect" (sk),
    connect6_uaddr = "tcp_v6_connect" (uaddr),
    connect6_ret = "tcp_v6_connect" (returned),
    accept_sk = "inet_csk_accept" (sk),
    accept_ret = "inet_csk_accept" (returned),
    graft_sk = "security_sock_graft" (sk),
}

/// Where `struct pt_regs` keeps the arguments of a function, its result, and those of a system call.
///
/// The C calling convention of the kernel's architecture; user space knows it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Regs {
    /// The first six arguments.
    pub args: [Off<u64>; 6],
    /// The return value.
    pub ret: Off<u64>,
    /// The number of the system call.
    pub syscall: Off<u64>,
    /// The first argument of the system call.
    pub syscall_arg0: Off<u64>,
}

impl Regs {
    /// Nothing is known.
    pub const ABSENT: Self = Self {
        args: [Off::ABSENT; 6],
        ret: Off::ABSENT,
        syscall: Off::ABSENT,
        syscall_arg0: Off::ABSENT,
    };
}
