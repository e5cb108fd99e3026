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

/// A bit field within one byte; in some kernels the same field is a byte, or begins at one: then its lowest eight bits.
#[derive(Clone, Copy, Debug)]
pub enum Bits {}

impl Off<Bits> {
    /// The field is `width` bits, the lowest of which is bit `shift` of that byte.
    #[must_use]
    pub const fn bits(byte: u32, shift: u32, width: u32) -> Self {
        Self(byte << 8 | shift << 4 | width, PhantomData)
    }

    /// Bytes into the structure.
    #[must_use]
    pub const fn byte(self) -> u32 {
        self.0 >> 8
    }

    /// The field out of its byte.
    #[must_use]
    pub const fn of(self, byte: u8) -> u8 {
        let (shift, width) = (self.0 >> 4 & 7, self.0 & 15);
        byte >> shift & (0xff >> (8 - width))
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
    /// It is [`Bits`].
    pub bits: bool,
}

macro_rules! kernel_fields {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $of:literal . $path:literal $($trait:ident)?,)*) => {
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
                    optional: kernel_fields!(@optional $($trait)?),
                    bits: kernel_fields!(@bits $($trait)?),
                },)*
            ];
        }
    };
    (@optional optional) => { true };
    (@optional optional_bits) => { true };
    (@optional $($other:ident)?) => { false };
    (@bits bits) => { true };
    (@bits optional_bits) => { true };
    (@bits $($other:ident)?) => { false };
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
    listener: Ptr = "sock_common"."skc_listener",
    hashed: Ptr = "sock_common"."skc_nulls_node.pprev",
    net_inum: u32 = "net"."ns.inum",
    net_syncookies: u8 = "net"."ipv4.sysctl_tcp_syncookies",
    net_fastopen: u8 = "net"."ipv4.sysctl_tcp_fastopen",
    net_max_syn_backlog: u32 = "net"."ipv4.sysctl_max_syn_backlog",
    protocol: u16 = "sock"."sk_protocol",
    lock_owned: u32 = "sock"."sk_lock.owned",
    shutdown: u8 = "sock"."sk_shutdown",
    err: u32 = "sock"."sk_err",
    err_soft: u32 = "sock"."sk_err_soft",
    error_queue: Ptr = "sock"."sk_error_queue.prev",
    error_queue_len: u32 = "sock"."sk_error_queue.qlen",
    exterr_errno: u32 = "sock_exterr_skb"."ee.ee_errno",
    exterr_origin: u8 = "sock_exterr_skb"."ee.ee_origin",
    exterr_type: u8 = "sock_exterr_skb"."ee.ee_type",
    exterr_code: u8 = "sock_exterr_skb"."ee.ee_code",
    ack_backlog: u32 = "sock"."sk_ack_backlog",
    max_ack_backlog: u32 = "sock"."sk_max_ack_backlog",
    socket: Ptr = "sock"."sk_socket",
    reuseport: Ptr = "sock"."sk_reuseport_cb",
    reuseport_overflow: u32 = "sock_reuseport"."synq_overflow_ts",
    syn_queue: u32 = "inet_connection_sock"."icsk_accept_queue.qlen",
    defer_accept: u8 = "inet_connection_sock"."icsk_accept_queue.rskq_defer_accept",
    fastopen_queue: u32 = "inet_connection_sock"."icsk_accept_queue.fastopenq.qlen",
    fastopen_limit: u32 = "inet_connection_sock"."icsk_accept_queue.fastopenq.max_qlen",
    sport: u16 = "inet_sock"."inet_sport",
    bytes_received: u64 = "tcp_sock"."bytes_received",
    bytes_sent: u64 = "tcp_sock"."bytes_sent",
    bytes_retrans: u64 = "tcp_sock"."bytes_retrans",
    segs_in: u32 = "tcp_sock"."segs_in",
    segs_out: u32 = "tcp_sock"."segs_out",
    total_retrans: u32 = "tcp_sock"."total_retrans",
    snd_nxt: u32 = "tcp_sock"."snd_nxt",
    snd_wnd: u32 = "tcp_sock"."snd_wnd",
    retransmits: u8 = "inet_connection_sock"."icsk_retransmits",
    timer_event: u8 = "inet_connection_sock"."icsk_pending",
    rto: u32 = "inet_connection_sock"."icsk_rto",
    retrans_stamp: u32 = "tcp_sock"."retrans_stamp",
    usec_ts: Bits = "tcp_sock"."tcp_usec_ts" optional_bits,
    undo_marker: u32 = "tcp_sock"."undo_marker",
    sack_ok: Bits = "tcp_sock"."rx_opt.sack_ok" bits,
    bytes_acked: u64 = "tcp_sock"."bytes_acked",
    fastopen_failed: Bits = "tcp_sock"."fastopen_client_fail" bits,
    user_timeout: u32 = "inet_connection_sock"."icsk_user_timeout",
    window_probes: u8 = "inet_connection_sock"."icsk_probes_out",
    ca_state: Bits = "inet_connection_sock"."icsk_ca_state" bits,
    write_timer: u64 = "inet_connection_sock"."icsk_retransmit_timer" optional,
    write_timer_in_sock: u64 = "sock"."tcp_retransmit_timer" optional,
    keepalive_timer: Ptr = "inet_connection_sock"."icsk_keepalive_timer.entry.pprev" optional,
    sock_timer: Ptr = "sock"."sk_timer.entry.pprev",
    last_sent: u32 = "tcp_sock"."lsndtime",
    last_received: u32 = "inet_connection_sock"."icsk_ack.lrcvtime",
    last_ack: u32 = "tcp_sock"."rcv_tstamp",
    wmem_queued: u32 = "sock"."sk_wmem_queued",
    sndbuf: u32 = "sock"."sk_sndbuf",
    rmem_alloc: u32 = "sock"."sk_backlog.rmem_alloc",
    rcvbuf: u32 = "sock"."sk_rcvbuf",
    srtt_us: u32 = "tcp_sock"."srtt_us",
    rcv_nxt: u32 = "tcp_sock"."rcv_nxt",
    copied_seq: u32 = "tcp_sock"."copied_seq",
    write_seq: u32 = "tcp_sock"."write_seq",
    snd_una: u32 = "tcp_sock"."snd_una",
    rcv_wnd: u32 = "tcp_sock"."rcv_wnd",
    rcv_wup: u32 = "tcp_sock"."rcv_wup",
    chrono_start: u32 = "tcp_sock"."chrono_start",
    chrono_stat: [u32; 3] = "tcp_sock"."chrono_stat",
    chrono_type: Bits = "tcp_sock"."chrono_type" bits,
    out_of_order_queue: Ptr = "tcp_sock"."out_of_order_queue.rb_node",
    receive_queue: Ptr = "sock"."sk_receive_queue.next",
    receive_queue_len: u32 = "sock"."sk_receive_queue.qlen",
    write_queue: Ptr = "sock"."sk_write_queue.next",
    write_queue_len: u32 = "sock"."sk_write_queue.qlen",
    retransmit_queue: Ptr = "sock"."tcp_rtx_queue.rb_node",
    backlog: Ptr = "sock"."sk_backlog.head",
    wmem_alloc: u32 = "sock"."sk_wmem_alloc",
    forward_alloc: i32 = "sock"."sk_forward_alloc",
    drops: u32 = "sock"."sk_drops",
    tw_substate: u8 = "inet_timewait_sock"."tw_substate",
    overflow: u32 = "tcp_sock"."rx_opt.ts_recent_stamp",
    fastopen_req: Ptr = "tcp_sock"."fastopen_rsk",
    is_mptcp: u8 = "tcp_sock"."is_mptcp" optional,
    mptcp_first: Ptr = "mptcp_sock"."first" optional,
    req_ops: Ptr = "request_sock"."rsk_ops",
    req_family: u32 = "request_sock_ops"."family",
    req_retrans: u8 = "request_sock"."num_retrans",
    req_timeouts: Bits = "request_sock"."num_timeout" bits,
    req_acked: Bits = "inet_request_sock"."acked" bits,
    req_timer: u64 = "request_sock"."rsk_timer",
    req_synack_us: u64 = "tcp_request_sock"."snt_synack",
    timer_function: Ptr = "timer_list"."function",
    skb_next: Ptr = "sk_buff"."next",
    skb_rb_parent: Ptr = "sk_buff"."rbnode.__rb_parent_color",
    skb_rb_left: Ptr = "sk_buff"."rbnode.rb_left",
    skb_rb_right: Ptr = "sk_buff"."rbnode.rb_right",
    skb_len: u32 = "sk_buff"."len",
    skb_truesize: u32 = "sk_buff"."truesize",
    skb_stamp: u64 = "sk_buff"."tstamp",
    skb_head: Ptr = "sk_buff"."head",
    skb_data: Ptr = "sk_buff"."data",
    skb_sk: Ptr = "sk_buff"."sk",
    skb_dev: Ptr = "sk_buff"."dev",
    skb_control: u64 = "sk_buff"."cb",
    tcb_seq: u32 = "tcp_skb_cb"."seq",
    tcb_end_seq: u32 = "tcp_skb_cb"."end_seq",
    tcb_flags: Bits = "tcp_skb_cb"."tcp_flags" bits,
    skb_network: u16 = "sk_buff"."network_header",
    skb_transport: u16 = "sk_buff"."transport_header",
    skb_dst: Ptr = "sk_buff"."_skb_refdst",
    skb_data_len: u32 = "sk_buff"."data_len",
    skb_end: u32 = "sk_buff"."end",
    skb_protocol: u16 = "sk_buff"."protocol",
    shinfo_gso_size: u16 = "skb_shared_info"."gso_size",
    shinfo_gso_segs: u16 = "skb_shared_info"."gso_segs",
    shinfo_frags: u64 = "skb_shared_info"."frags",
    msg_flags: u32 = "msghdr"."msg_flags",
    dev_name: [u8; 16] = "net_device"."name",
    dev_ifindex: u32 = "net_device"."ifindex",
    pair_second: u64 = "sk_buff_fclones"."skb2",
    pair_ref: u32 = "sk_buff_fclones"."fclone_ref",
    cache_object_size: u32 = "kmem_cache"."object_size",
    dst_dev: Ptr = "dst_entry"."dev",
    rt_type: u16 = "rtable"."rt_type",
    rt6_flags: u32 = "rt6_info"."rt6i_flags",
    dev_net: Ptr = "net_device"."nd_net.net",
    socket_sk: Ptr = "socket"."sk",
    socket_struct: u64 = "socket_alloc"."socket",
    socket_inode: u64 = "socket_alloc"."vfs_inode.i_ino",
    socket_file: Ptr = "socket"."file",
    file_private: Ptr = "file"."private_data",
    task_files: Ptr = "task_struct"."files",
    task_tgid: u32 = "task_struct"."tgid",
    task_pid: u32 = "task_struct"."pid",
    task_flags: u32 = "task_struct"."flags",
    task_comm: [u8; 16] = "task_struct"."comm",
    task_exit: u32 = "task_struct"."exit_code",
    task_signal: Ptr = "task_struct"."signal",
    signal_live: u32 = "signal_struct"."live",
    signal_limits: u64 = "signal_struct"."rlim",
    task_cred: Ptr = "task_struct"."cred",
    cred_uid: u32 = "cred"."uid.val",
    files_fdt: Ptr = "files_struct"."fdt",
    fdt_max: u32 = "fdtable"."max_fds",
    fdt_open: Ptr = "fdtable"."open_fds",
    fdt_fd: Ptr = "fdtable"."fd",
    ops_sk: Ptr = "bpf_sock_ops_kern"."sk",
    uring_file: Ptr = "io_kiocb"."file" optional,
    uring_opcode: u8 = "io_kiocb"."opcode" optional,
    uring_cqe_res: i32 = "io_uring_cqe"."res" optional,
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
    /// The parameter's name (of `__traceiter_…` the first is `__data`, which a program does not get), or `None` for the return value, whose slot follows the last parameter's.
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
    sys_listen_fd = "__sys_listen" (fd),
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
    sys_accept_fd = "__sys_accept4" (fd),
    sys_accept_ret = "__sys_accept4" (returned),
    uring_req = "__traceiter_io_uring_complete" (req),
    uring_res = "__traceiter_io_uring_complete" (res),
    uring_cqe = "__traceiter_io_uring_complete" (cqe),
    graft_sk = "security_sock_graft" (sk),
    hash_add_sk = "inet_csk_reqsk_queue_hash_add" (sk),
    hash_add_req = "inet_csk_reqsk_queue_hash_add" (req),
    conn_request_sk = "tcp_conn_request" (sk),
    conn_request_skb = "tcp_conn_request" (skb),
    reqsk_alloc_ret = "inet_reqsk_alloc" (returned),
    synack_sk = "tcp_make_synack" (sk),
    synack_req = "tcp_make_synack" (req),
    synack_type = "tcp_make_synack" (synack_type),
    hashdance_sk = "inet_csk_complete_hashdance" (sk),
    hashdance_child = "inet_csk_complete_hashdance" (child),
    hashdance_req = "inet_csk_complete_hashdance" (req),
    hashdance_own_req = "inet_csk_complete_hashdance" (own_req),
    queue_add_sk = "inet_csk_reqsk_queue_add" (sk),
    queue_add_child = "inet_csk_reqsk_queue_add" (child),
    check_req_sk = "tcp_check_req" (sk),
    check_req_skb = "tcp_check_req" (skb),
    check_req_req = "tcp_check_req" (req),
    check_req_ret = "tcp_check_req" (returned),
    timer = "reqsk_timer_handler" (t),
    drop_sk = "inet_csk_reqsk_queue_drop" (sk),
    drop_req = "inet_csk_reqsk_queue_drop" (req),
    drop_put_sk = "inet_csk_reqsk_queue_drop_and_put" (sk),
    drop_put_req = "inet_csk_reqsk_queue_drop_and_put" (req),
    cookie4_sk = "cookie_v4_check" (sk),
    cookie4_skb = "cookie_v4_check" (skb),
    cookie4_ret = "cookie_v4_check" (returned),
    cookie6_sk = "cookie_v6_check" (sk),
    cookie6_skb = "cookie_v6_check" (skb),
    cookie6_ret = "cookie_v6_check" (returned),
    fd_install_fd = "fd_install" (fd),
    fd_install_file = "fd_install" (file),
    dup2_file = "do_dup2" (file),
    dup2_fd = "do_dup2" (fd),
    close_fd = "close_fd" (fd),
    filp_close_filp = "filp_close" (filp),
    release_socket = "inet_release" (sock),
    sendmsg_sk = "tcp_sendmsg" (sk),
    kfree_skb_location = "__traceiter_kfree_skb" (location),
    retransmit_err = "__traceiter_tcp_retransmit_skb" (err),
    send_reset_reason = "__traceiter_tcp_send_reset" (reason),
    send_reset4_sk = "tcp_v4_send_reset" (sk),
    send_reset4_skb = "tcp_v4_send_reset" (skb),
    error_report_sk = "sock_def_error_report" (sk),
    wait_memory_sk = "sk_stream_wait_memory" (sk),
    wait_memory_ret = "sk_stream_wait_memory" (returned),
    probe_sk = "tcp_send_probe0" (sk),
    sendmsg_msg = "tcp_sendmsg" (msg),
    sendmsg_size = "tcp_sendmsg" (size),
    transmit_sk = "__tcp_transmit_skb" (sk),
    transmit_skb = "__tcp_transmit_skb" (skb),
    ip_queue_sk = "ip_queue_xmit" (sk),
    ip_queue_skb = "ip_queue_xmit" (skb),
    ip6_queue_sk = "inet6_csk_xmit" (sk),
    ip6_queue_skb = "inet6_csk_xmit" (skb),
    ip_finish_skb = "ip_finish_output2" (skb),
    ip6_finish_skb = "ip6_finish_output2" (skb),
    ip_output_skb = "ip_output" (skb),
    ip6_output_skb = "ip6_output" (skb),
    ip_rcv_skb = "ip_rcv_core" (skb),
    ip6_rcv_skb = "ip6_rcv_core" (skb),
    ip_rcv_one_skb = "ip_rcv" (skb),
    ip6_rcv_one_skb = "ipv6_rcv" (skb),
    tcp4_rcv_skb = "tcp_v4_rcv" (skb),
    tcp6_rcv_skb = "tcp_v6_rcv" (skb),
    backlog_sk = "tcp_add_backlog" (sk),
    backlog_skb = "tcp_add_backlog" (skb),
    queue_rcv_sk = "tcp_queue_rcv" (sk),
    queue_rcv_skb = "tcp_queue_rcv" (skb),
    queue_rcv_ret = "tcp_queue_rcv" (returned),
    kfree_skb_rx_sk = "__traceiter_kfree_skb" (rx_sk),
    kfree_skb_reason = "__traceiter_kfree_skb" (reason),
    alloc_skb_size = "__alloc_skb" (size),
    alloc_skb_ret = "__alloc_skb" (returned),
    skb_clone_skb = "skb_clone" (skb),
    skb_clone_ret = "skb_clone" (returned),
    tcp_stream_sk = "tcp_stream_alloc_skb" (sk),
    tcp_stream_ret = "tcp_stream_alloc_skb" (returned),
    sk_stream_sk = "sk_stream_alloc_skb" (sk),
    sk_stream_ret = "sk_stream_alloc_skb" (returned),
    napi_alloc_len = "napi_alloc_skb" (len),
    napi_alloc_ret = "napi_alloc_skb" (returned),
    old_napi_alloc_len = "__napi_alloc_skb" (len),
    old_napi_alloc_ret = "__napi_alloc_skb" (returned),
    napi_build_ret = "napi_build_skb" (returned),
    build_ret = "build_skb" (returned),
    inner_build_ret = "__build_skb" (returned),
    slab_build_ret = "slab_build_skb" (returned),
    release_head_skb = "skb_release_head_state" (skb),
    do_rcv4_sk = "tcp_v4_do_rcv" (sk),
    do_rcv4_skb = "tcp_v4_do_rcv" (skb),
    do_rcv6_sk = "tcp_v6_do_rcv" (sk),
    do_rcv6_skb = "tcp_v6_do_rcv" (skb),
    qdisc_drop_skb = "__traceiter_qdisc_drop" (skb),
    qdisc_drop_reason = "__traceiter_qdisc_drop" (reason),
    call_bpf_faultable = "trace_call_bpf_faultable" (returned),
    cache_alloc_cache = "__traceiter_kmem_cache_alloc" (s),
    cache_free_cache = "__traceiter_kmem_cache_free" (s),
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
    /// The stack: at a function's entry its return address stands there.
    pub stack: Off<u64>,
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
        stack: Off::ABSENT,
        syscall: Off::ABSENT,
        syscall_arg0: Off::ABSENT,
    };
}
