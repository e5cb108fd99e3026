//! The one table of hooks: for each part of a socket's life the rungs of its ladder, best first.
//!
//! Nothing else in the code knows a rung. The loader takes the first that this kernel accepts; `doctor` prints why it
//! passed the others by.

use socklife_abi::{event::Kind, program::Program, skb::SINGLY, table::DROPS_COUNTED};

use super::{
    At,
    Class::{self, Fentry, Kprobe, Tracepoint},
    Hook, Need, Row, Rung,
};
use crate::event::HOLDERS;

const ANY: &[Class] = &[Fentry, Kprobe, Tracepoint];

/// Whatever is asked for needs it.
const ALL: u64 = u64::MAX;

/// What comes of the SYN queue. The rows of it leave notes for one another: each event needs them all.
const SYN_QUEUE: u64 = Kind::set(&[
    Kind::SynQueued,
    Kind::SynackSent,
    Kind::SynackRetransmitted,
    Kind::CookieSent,
    Kind::CookieAccepted,
    Kind::CookieRejected,
    Kind::SynRefused,
    Kind::HalfOpenEnded,
    Kind::AcceptDeferred,
    Kind::AcceptQueued,
    Kind::AcceptRefused,
    Kind::Listener,
]);

/// What comes of accept(2), or of its absence.
const ACCEPT: u64 = Kind::set(&[Kind::Accepted, Kind::NeverAccepted, Kind::Listener]);

/// What comes of accept(2) when it fails.
const ACCEPT_FAILED: u64 = Kind::set(&[Kind::AcceptFailed, Kind::Listener]);

/// A segment's way through the layers.
const STEPS: u64 = Kind::set(&[Kind::SkbStep]);

/// See `probes/skb_alloc.rs`.
const PAIRS_ONLY: &str = "sk_buffs other than those that TCP queues to send, each with its first clone";

/// A tracepoint of system calls on a kernel (7.2 on) that lets a task be preempted in there, and skips each program by
/// itself: two of them make up for one another. Before, all programs at a tracepoint are skipped at once.
const fn preemptible(name: &'static str) -> At {
    At::TracepointNamed("syscalls", name, "trace_call_bpf_faultable")
}

macro_rules! rung {
    ($classes:expr; $($program:ident @ $at:expr),+ $(,)?) => {
        rung!($classes; $($program @ $at),+; cannot: [])
    };
    ($classes:expr; $($program:ident @ $at:expr),+ ; cannot: [$($cannot:expr),* $(,)?]) => {
        Rung {
            classes: $classes,
            hooks: &[$(Hook { program: Program::$program, at: $at }),+],
            cannot: &[$($cannot),*],
        }
    };
}

/// The table.
pub const TABLE: &[Row] = &[
    Row {
        name: "cookie at socket()",
        feeds: ALL,
        need: Need::Optional,
        rungs: &[rung!(ANY; CookieSockCreate @ At::SockCreate)],
    },
    Row {
        name: "cookie at the SYN",
        feeds: ALL,
        need: Need::Optional,
        rungs: &[rung!(ANY; CookieSockOps @ At::SockOps)],
    },
    Row {
        name: "destroy",
        feeds: ALL,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                DestroyTpBtf @ At::TpBtf("tcp_destroy_sock"), DestroyTpBtfSecond @ At::TpBtf("tcp_destroy_sock")),
            rung!(&[Kprobe];
                DestroyRawTp @ At::RawTp("tcp_destroy_sock"), DestroyRawTpSecond @ At::RawTp("tcp_destroy_sock")),
        ],
    },
    Row {
        name: "state changes",
        feeds: ALL,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                StateTpBtf @ At::TpBtf("inet_sock_set_state"), StateTpBtfSecond @ At::TpBtf("inet_sock_set_state")),
            rung!(&[Kprobe];
                StateRawTp @ At::RawTp("inet_sock_set_state"), StateRawTpSecond @ At::RawTp("inet_sock_set_state")),
        ],
    },
    Row {
        name: "bind()",
        feeds: Kind::set(&[Kind::Bound]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                BindFexit4Second @ At::Fexit("__inet_bind"), BindFexit4 @ At::Fexit("__inet_bind"),
                BindFexit6Second @ At::Fexit("__inet6_bind"), BindFexit6 @ At::Fexit("__inet6_bind")),
            rung!(&[Kprobe];
                BindKretprobe4 @ At::Kretprobe("__inet_bind"), BindKretprobe6 @ At::Kretprobe("__inet6_bind"),
                BindKprobe4 @ At::Kprobe("__inet_bind"), BindKprobe6 @ At::Kprobe("__inet6_bind")),
            rung!(&[Tracepoint]; BindCgroup4 @ At::PostBind4, BindCgroup6 @ At::PostBind6),
        ],
    },
    Row {
        name: "listen()",
        feeds: SYN_QUEUE | Kind::set(&[Kind::Listening]),
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                ListenAskedFentry @ At::Fentry("__sys_listen"), ListenFexitSk @ At::Fexit("__inet_listen_sk")),
            rung!(&[Fentry];
                ListenAskedFentry @ At::Fentry("__sys_listen"), ListenFexitSocket @ At::Fexit("inet_listen")),
            rung!(&[Kprobe];
                ListenAskedKprobe @ At::Kprobe("__sys_listen"),
                ListenKretprobeSk @ At::Kretprobe("__inet_listen_sk"), ListenKprobeSk @ At::Kprobe("__inet_listen_sk")),
            rung!(&[Kprobe];
                ListenAskedKprobe @ At::Kprobe("__sys_listen"),
                ListenKretprobeSocket @ At::Kretprobe("inet_listen"), ListenKprobeSocket @ At::Kprobe("inet_listen")),
            rung!(&[Tracepoint];
                ListenTp @ preemptible("sys_exit_listen"), ListenTpSecond @ preemptible("sys_exit_listen"),
                ListenAskedTp @ preemptible("sys_enter_listen"), ListenAskedTpSecond @ preemptible("sys_enter_listen")),
            rung!(&[Tracepoint];
                ListenTp @ At::Tracepoint("syscalls", "sys_exit_listen"),
                ListenAskedTp @ At::Tracepoint("syscalls", "sys_enter_listen")),
            rung!(&[Tracepoint]; ListenSockOps @ At::SockOps),
        ],
    },
    Row {
        name: "connect()",
        feeds: Kind::set(&[Kind::Connect, Kind::Connected, Kind::ConnectFailed, Kind::Closed]),
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                ConnectFentrySecond @ At::Fentry("tcp_connect"), ConnectFentry @ At::Fentry("tcp_connect")),
            rung!(&[Kprobe]; ConnectKprobe @ At::Kprobe("tcp_connect")),
            rung!(&[Tracepoint]; ConnectSockOps @ At::SockOps),
        ],
    },
    Row {
        name: "connect() refused before the SYN",
        feeds: Kind::set(&[Kind::ConnectFailed]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                ConnectFailFexit4Second @ At::Fexit("tcp_v4_connect"), ConnectFailFexit4 @ At::Fexit("tcp_v4_connect"),
                ConnectFailFexit6Second @ At::Fexit("tcp_v6_connect"), ConnectFailFexit6 @ At::Fexit("tcp_v6_connect")),
            rung!(&[Kprobe];
                ConnectFailKretprobe4 @ At::Kretprobe("tcp_v4_connect"),
                ConnectFailKretprobe6 @ At::Kretprobe("tcp_v6_connect"),
                ConnectFailKprobe4 @ At::Kprobe("tcp_v4_connect"), ConnectFailKprobe6 @ At::Kprobe("tcp_v6_connect")),
            rung!(&[Tracepoint];
                ConnectFailTp @ preemptible("sys_exit_connect"), ConnectFailTpSecond @ preemptible("sys_exit_connect"),
                ConnectEnterTp @ preemptible("sys_enter_connect"),
                ConnectEnterTpSecond @ preemptible("sys_enter_connect")),
            rung!(&[Tracepoint];
                ConnectFailTp @ At::Tracepoint("syscalls", "sys_exit_connect"),
                ConnectEnterTp @ At::Tracepoint("syscalls", "sys_enter_connect")),
        ],
    },
    Row {
        name: "accept()",
        feeds: ACCEPT | ACCEPT_FAILED,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                AcceptFexitSecond @ At::Fexit("inet_csk_accept"), AcceptFexit @ At::Fexit("inet_csk_accept")),
            rung!(&[Kprobe];
                AcceptKretprobe @ At::Kretprobe("inet_csk_accept"), AcceptKprobe @ At::Kprobe("inet_csk_accept")),
            rung!(&[Tracepoint];
                Accept4Tp @ preemptible("sys_exit_accept4"), Accept4TpSecond @ preemptible("sys_exit_accept4"),
                AcceptTp @ preemptible("sys_exit_accept"), AcceptTpSecond @ preemptible("sys_exit_accept"),
                Accept4EnterTp @ preemptible("sys_enter_accept4"),
                Accept4EnterTpSecond @ preemptible("sys_enter_accept4"),
                AcceptEnterTp @ preemptible("sys_enter_accept"),
                AcceptEnterTpSecond @ preemptible("sys_enter_accept")),
            rung!(&[Tracepoint];
                Accept4Tp @ At::Tracepoint("syscalls", "sys_exit_accept4"),
                AcceptTp @ At::Tracepoint("syscalls", "sys_exit_accept"),
                Accept4EnterTp @ At::Tracepoint("syscalls", "sys_enter_accept4"),
                AcceptEnterTp @ At::Tracepoint("syscalls", "sys_enter_accept")),
            rung!(&[Tracepoint]; AcceptTpBtf @ At::TpBtf("sys_exit")),
        ],
    },
    Row {
        name: "accept() that fails",
        feeds: ACCEPT_FAILED,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                AcceptFailFexitSecond @ At::Fexit("__sys_accept4"), AcceptFailFexit @ At::Fexit("__sys_accept4")),
            rung!(&[Kprobe];
                AcceptFailKretprobe @ At::Kretprobe("__sys_accept4"), AcceptFailKprobe @ At::Kprobe("__sys_accept4")),
            // The hooks at the system call's exit see it.
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "accept() by io_uring",
        feeds: ACCEPT | ACCEPT_FAILED,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Kprobe]; AcceptUringRawTp @ At::RawTp("io_uring_complete")),
            rung!(&[Tracepoint]; AcceptUringRawTp @ At::RawTp("io_uring_complete"); cannot: [
                "who accepts by io_uring into a direct descriptor, and when: such accepts are counted when the connection's \
                 state changes next",
            ]),
            // The functions that accept see it, but not that it fails.
            Rung {
                classes: &[Fentry, Kprobe],
                hooks: &[],
                cannot: &["that an accept by io_uring fails, where the kernel has io_uring"],
            },
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[
                    "who accepts by io_uring, where the kernel has it, and when: such accepts are counted when the \
                     connection's state changes next",
                ],
            },
        ],
    },
    Row {
        name: "accept() that was waiting already",
        feeds: ACCEPT,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                AcceptLateFentrySecond @ At::Fentry("security_sock_graft"),
                AcceptLateFentry @ At::Fentry("security_sock_graft")),
            rung!(&[Kprobe]; AcceptLateKprobe @ At::Kprobe("security_sock_graft")),
            // The hooks at the system call's exit see it anyway.
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a SYN and what becomes of it",
        feeds: SYN_QUEUE,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                SynFexit @ At::Fexit("tcp_conn_request"), SynAllocFexit @ At::Fexit("inet_reqsk_alloc"),
                SynackFentry @ At::Fentry("tcp_make_synack"), SynFentry @ At::Fentry("tcp_conn_request")),
            rung!(&[Kprobe];
                SynKretprobe @ At::Kretprobe("tcp_conn_request"), SynAllocKretprobe @ At::Kretprobe("inet_reqsk_alloc"),
                SynackKprobe @ At::Kprobe("tcp_make_synack"), SynKprobe @ At::Kprobe("tcp_conn_request")),
            rung!(&[Tracepoint]; SynConsumedTpBtf @ At::TpBtf("consume_skb"); cannot: [
                "the cause `no_memory`: it is `other`",
                "which of several listeners on one address (SO_REUSEPORT) refused a SYN, why, or whether it sent a cookie",
            ]),
        ],
    },
    Row {
        name: "into the SYN queue",
        feeds: SYN_QUEUE,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry]; SynQueueFexit @ At::Fexit("inet_csk_reqsk_queue_hash_add")),
            rung!(&[Kprobe];
                SynQueueKretprobe @ At::Kretprobe("inet_csk_reqsk_queue_hash_add"),
                SynQueueKprobe @ At::Kprobe("inet_csk_reqsk_queue_hash_add")),
            rung!(&[Tracepoint]; SynQueueSockOps @ At::SockOps),
        ],
    },
    Row {
        name: "a SYN-ACK again",
        feeds: SYN_QUEUE,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; SynackAgainTpBtf @ At::TpBtf("tcp_retransmit_synack")),
            rung!(&[Kprobe]; SynackAgainRawTp @ At::RawTp("tcp_retransmit_synack")),
        ],
    },
    Row {
        name: "from the SYN queue: time is up",
        feeds: SYN_QUEUE,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                TimerFexit @ At::Fexit("reqsk_timer_handler"), TimerFentry @ At::Fentry("reqsk_timer_handler")),
            rung!(&[Kprobe];
                TimerKretprobe @ At::Kretprobe("reqsk_timer_handler"), TimerKprobe @ At::Kprobe("reqsk_timer_handler")),
            rung!(&[Tracepoint];
                TimerExitRawTp @ At::RawTp("timer_expire_exit"), TimerRawTp @ At::RawTp("timer_expire_entry")),
        ],
    },
    Row {
        name: "from the SYN queue: by a segment",
        feeds: SYN_QUEUE,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry]; CheckFexit @ At::Fexit("tcp_check_req"), CheckFentry @ At::Fentry("tcp_check_req")),
            rung!(&[Kprobe]; CheckKretprobe @ At::Kretprobe("tcp_check_req"), CheckKprobe @ At::Kprobe("tcp_check_req")),
            rung!(&[Tracepoint]; DroppedTpBtf @ At::TpBtf("kfree_skb")),
        ],
    },
    Row {
        name: "from the SYN queue: taken out",
        feeds: SYN_QUEUE,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                RemovedFentry @ At::Fentry("inet_csk_reqsk_queue_drop"),
                RemovedPutFentry @ At::Fentry("inet_csk_reqsk_queue_drop_and_put")),
            rung!(&[Kprobe];
                RemovedKprobe @ At::Kprobe("inet_csk_reqsk_queue_drop"),
                RemovedPutKprobe @ At::Kprobe("inet_csk_reqsk_queue_drop_and_put")),
            // With a segment it is seen above; without one it is missed when its timer stays silent.
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[
                    "`cancelled`: a half-open connection that ICMP or `ss --kill` ended is `unknown`, two minutes later",
                ],
            },
        ],
    },
    Row {
        name: "a SYN cookie that comes back",
        feeds: SYN_QUEUE,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                CookieFexit4 @ At::Fexit("cookie_v4_check"), CookieFexit6 @ At::Fexit("cookie_v6_check"),
                CookieFentry4 @ At::Fentry("cookie_v4_check"), CookieFentry6 @ At::Fentry("cookie_v6_check")),
            rung!(&[Kprobe];
                CookieKretprobe4 @ At::Kretprobe("cookie_v4_check"), CookieKretprobe6 @ At::Kretprobe("cookie_v6_check"),
                CookieKprobe4 @ At::Kprobe("cookie_v4_check"), CookieKprobe6 @ At::Kprobe("cookie_v6_check")),
            rung!(&[Tracepoint]; CookieDroppedTpBtf @ At::TpBtfNamed("kfree_skb", "__traceiter_kfree_skb")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["`cookie_rejected`, and `accept_refused` of a valid SYN cookie"],
            },
        ],
    },
    Row {
        name: "into the accept queue",
        feeds: SYN_QUEUE | ACCEPT,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                AcceptQueueSockOps @ At::SockOps, AddingFentry @ At::Fentry("inet_csk_reqsk_queue_add"),
                CompletedFentry @ At::Fentry("inet_csk_complete_hashdance")),
            rung!(&[Kprobe];
                AcceptQueueSockOps @ At::SockOps, AddingKprobe @ At::Kprobe("inet_csk_reqsk_queue_add"),
                CompletedKprobe @ At::Kprobe("inet_csk_complete_hashdance")),
            rung!(&[Tracepoint]; AcceptQueueSockOps @ At::SockOps),
        ],
    },
    Row {
        name: "fork(), execve() and exit()",
        feeds: HOLDERS,
        need: Need::Optional,
        rungs: &[rung!(ANY;
            ExitRawTp @ At::RawTp("sched_process_exit"), ExitRawTpSecond @ At::RawTp("sched_process_exit"),
            ExecRawTp @ At::RawTp("sched_process_exec"), ExecRawTpSecond @ At::RawTp("sched_process_exec"),
            ForkRawTp @ At::RawTp("sched_process_fork"), ForkRawTpSecond @ At::RawTp("sched_process_fork"))],
    },
    Row {
        name: "a descriptor more",
        feeds: HOLDERS,
        need: Need::Optional,
        // A kprobe's program is not preempted, as a trampoline's is on some kernels: at a place where the whole machine
        // comes by not even a second program sees everything.
        rungs: &[
            rung!(&[Fentry, Kprobe]; OpenKprobe @ At::Kprobe("fd_install"), DupKprobe @ At::Kprobe("do_dup2")),
            rung!(&[Fentry];
                OpenAcceptTp @ preemptible("sys_exit_accept"), OpenAcceptTpSecond @ preemptible("sys_exit_accept"),
                OpenAccept4Tp @ preemptible("sys_exit_accept4"), OpenAccept4TpSecond @ preemptible("sys_exit_accept4"),
                OpenDupTp @ preemptible("sys_exit_dup"), OpenDupTpSecond @ preemptible("sys_exit_dup"),
                OpenDup2Tp @ preemptible("sys_exit_dup2"), OpenDup2TpSecond @ preemptible("sys_exit_dup2"),
                OpenDup3Tp @ preemptible("sys_exit_dup3"), OpenDup3TpSecond @ preemptible("sys_exit_dup3"),
                OpenFcntlTp @ preemptible("sys_exit_fcntl"), OpenFcntlTpSecond @ preemptible("sys_exit_fcntl"),
                OpenPidfdTp @ preemptible("sys_exit_pidfd_getfd"), OpenPidfdTpSecond @ preemptible("sys_exit_pidfd_getfd"),
                RecvmsgTp @ preemptible("sys_exit_recvmsg"), RecvmsgTpSecond @ preemptible("sys_exit_recvmsg"),
                RecvmsgEnterTp @ preemptible("sys_enter_recvmsg"),
                RecvmsgEnterTpSecond @ preemptible("sys_enter_recvmsg"); cannot: [
                "sockets that came with recvmmsg(2), or behind the eighth in one message, before they are used",
            ]),
            rung!(&[Fentry];
                OpenAcceptTp @ At::Tracepoint("syscalls", "sys_exit_accept"),
                OpenAccept4Tp @ At::Tracepoint("syscalls", "sys_exit_accept4"),
                OpenDupTp @ At::Tracepoint("syscalls", "sys_exit_dup"),
                OpenDup2Tp @ At::Tracepoint("syscalls", "sys_exit_dup2"),
                OpenDup3Tp @ At::Tracepoint("syscalls", "sys_exit_dup3"),
                OpenFcntlTp @ At::Tracepoint("syscalls", "sys_exit_fcntl"),
                OpenPidfdTp @ At::Tracepoint("syscalls", "sys_exit_pidfd_getfd"),
                RecvmsgTp @ At::Tracepoint("syscalls", "sys_exit_recvmsg"),
                RecvmsgEnterTp @ At::Tracepoint("syscalls", "sys_enter_recvmsg"); cannot: [
                "sockets that came with recvmmsg(2), or behind the eighth in one message, before they are used",
            ]),
            rung!(&[Tracepoint];
                OpenDupTp @ preemptible("sys_exit_dup"), OpenDupTpSecond @ preemptible("sys_exit_dup"),
                OpenDup2Tp @ preemptible("sys_exit_dup2"), OpenDup2TpSecond @ preemptible("sys_exit_dup2"),
                OpenDup3Tp @ preemptible("sys_exit_dup3"), OpenDup3TpSecond @ preemptible("sys_exit_dup3"),
                OpenFcntlTp @ preemptible("sys_exit_fcntl"), OpenFcntlTpSecond @ preemptible("sys_exit_fcntl"),
                OpenPidfdTp @ preemptible("sys_exit_pidfd_getfd"), OpenPidfdTpSecond @ preemptible("sys_exit_pidfd_getfd"),
                RecvmsgTp @ preemptible("sys_exit_recvmsg"), RecvmsgTpSecond @ preemptible("sys_exit_recvmsg"),
                RecvmsgEnterTp @ preemptible("sys_enter_recvmsg"),
                RecvmsgEnterTpSecond @ preemptible("sys_enter_recvmsg"); cannot: [
                "sockets that came with recvmmsg(2), or behind the eighth in one message, before they are used",
            ]),
            rung!(&[Tracepoint];
                OpenDupTp @ At::Tracepoint("syscalls", "sys_exit_dup"),
                OpenDup2Tp @ At::Tracepoint("syscalls", "sys_exit_dup2"),
                OpenDup3Tp @ At::Tracepoint("syscalls", "sys_exit_dup3"),
                OpenFcntlTp @ At::Tracepoint("syscalls", "sys_exit_fcntl"),
                OpenPidfdTp @ At::Tracepoint("syscalls", "sys_exit_pidfd_getfd"),
                RecvmsgTp @ At::Tracepoint("syscalls", "sys_exit_recvmsg"),
                RecvmsgEnterTp @ At::Tracepoint("syscalls", "sys_enter_recvmsg"); cannot: [
                "sockets that came with recvmmsg(2), or behind the eighth in one message, before they are used",
            ]),
            Rung {
                classes: &[Fentry, Tracepoint],
                hooks: &[],
                cannot: &["dup(2), and sockets that came over a Unix socket before they are used"],
            },
        ],
    },
    Row {
        name: "a descriptor less",
        feeds: HOLDERS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Kprobe]; CloseFlushKprobe @ At::Kprobe("filp_flush"), ClosingFileKprobe @ At::Kprobe("file_close_fd")),
            rung!(&[Fentry, Kprobe]; CloseKprobe @ At::Kprobe("filp_close"), ClosingKprobe @ At::Kprobe("close_fd")),
            rung!(&[Fentry, Tracepoint];
                CloseTp @ preemptible("sys_enter_close"), CloseTpSecond @ preemptible("sys_enter_close"),
                ReplaceDup2Tp @ preemptible("sys_enter_dup2"), ReplaceDup2TpSecond @ preemptible("sys_enter_dup2"),
                ReplaceDup3Tp @ preemptible("sys_enter_dup3"), ReplaceDup3TpSecond @ preemptible("sys_enter_dup3"),
                CloseRangeTp @ preemptible("sys_enter_close_range"),
                CloseRangeTpSecond @ preemptible("sys_enter_close_range")),
            rung!(&[Fentry, Tracepoint];
                CloseTp @ At::Tracepoint("syscalls", "sys_enter_close"),
                ReplaceDup2Tp @ At::Tracepoint("syscalls", "sys_enter_dup2"),
                ReplaceDup3Tp @ At::Tracepoint("syscalls", "sys_enter_dup3"),
                CloseRangeTp @ At::Tracepoint("syscalls", "sys_enter_close_range")),
            Rung {
                classes: &[Fentry, Tracepoint],
                hooks: &[],
                cannot: &["which process closes its copy of a socket, before the process ends"],
            },
        ],
    },
    Row {
        name: "the last descriptor",
        feeds: HOLDERS,
        need: Need::Optional,
        rungs: &[
            rung!(ANY; ReleaseCgroup @ At::SockRelease),
            rung!(&[Kprobe]; ReleaseKprobe @ At::Kprobe("inet_release")),
        ],
    },
    Row {
        name: "who reads",
        feeds: HOLDERS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                ReadTpBtf @ At::TpBtf("tcp_rcv_space_adjust"), ReadTpBtfSecond @ At::TpBtf("tcp_rcv_space_adjust")),
            rung!(&[Kprobe];
                ReadRawTp @ At::RawTp("tcp_rcv_space_adjust"), ReadRawTpSecond @ At::RawTp("tcp_rcv_space_adjust")),
        ],
    },
    Row {
        name: "who writes",
        feeds: HOLDERS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; WriteFentrySecond @ At::Fentry("tcp_sendmsg"), WriteFentry @ At::Fentry("tcp_sendmsg")),
            rung!(&[Kprobe]; WriteKprobe @ At::Kprobe("tcp_sendmsg")),
            rung!(&[Tracepoint];
                WriteTpBtf @ At::TpBtf("sock_send_length"), WriteTpBtfSecond @ At::TpBtf("sock_send_length")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["a process that writes to a socket and does not read from it"],
            },
        ],
    },
    Row {
        name: "a segment dropped by a qdisc",
        feeds: Kind::set(&[Kind::SkbDropped]) | DROPS_COUNTED,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; QdiscDropTpBtf @ At::TpBtfNamed("qdisc_drop", "__traceiter_qdisc_drop")),
            rung!(&[Kprobe]; QdiscDropRawTp @ At::RawTpNamed("qdisc_drop", "__traceiter_qdisc_drop")),
            // Before 7.1 the row below says all that there is.
            Rung {
                classes: ANY,
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a segment dropped",
        feeds: Kind::set(&[Kind::SkbDropped, Kind::RcvqFull]) | DROPS_COUNTED,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; DropTpBtf @ At::TpBtfNamed("kfree_skb", "__traceiter_kfree_skb")),
            rung!(&[Kprobe]; DropRawTp @ At::RawTpNamed("kfree_skb", "__traceiter_kfree_skb")),
            rung!(&[Fentry, Tracepoint]; DropTpBtf @ At::TpBtf("kfree_skb"); cannot: [
                "the listener or connection that a segment was for when it was dropped; before 5.17 the reason, `rcvq_full`, \
                 and what a connection itself drops",
            ]),
            rung!(&[Kprobe]; DropRawTp @ At::RawTp("kfree_skb"); cannot: [
                "the listener or connection that a segment was for when it was dropped; before 5.17 the reason, `rcvq_full`, \
                 and what a connection itself drops",
            ]),
        ],
    },
    Row {
        name: "a segment sent again",
        feeds: Kind::set(&[Kind::Retransmitted]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; ResentTpBtf @ At::TpBtf("tcp_retransmit_skb")),
            rung!(&[Kprobe]; ResentRawTp @ At::RawTp("tcp_retransmit_skb")),
        ],
    },
    Row {
        name: "a RST sent",
        feeds: Kind::set(&[Kind::ResetSent]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                ResetSentTpBtf @ At::TpBtfNamed("tcp_send_reset", "__traceiter_tcp_send_reset")),
            rung!(&[Kprobe]; ResetSentRawTp @ At::RawTpNamed("tcp_send_reset", "__traceiter_tcp_send_reset")),
            // Before there was a reason, the tracepoint was silent where there is no socket.
            rung!(&[Fentry];
                ResetSentTpBtf @ At::TpBtf("tcp_send_reset"), ResetSentFentry4 @ At::Fentry("tcp_v4_send_reset"),
                ResetSentFentry6 @ At::Fentry("tcp_v6_send_reset")),
            rung!(&[Kprobe];
                ResetSentRawTp @ At::RawTp("tcp_send_reset"), ResetSentKprobe4 @ At::Kprobe("tcp_v4_send_reset"),
                ResetSentKprobe6 @ At::Kprobe("tcp_v6_send_reset")),
            rung!(&[Tracepoint]; ResetSentTpBtf @ At::TpBtf("tcp_send_reset"); cannot: [
                "a RST that answers where there is no socket, as for a closed port",
            ]),
        ],
    },
    Row {
        name: "a RST received",
        feeds: Kind::set(&[Kind::ResetReceived]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; ResetReceivedTpBtf @ At::TpBtf("tcp_receive_reset")),
            rung!(&[Kprobe]; ResetReceivedRawTp @ At::RawTp("tcp_receive_reset")),
        ],
    },
    Row {
        name: "an error while connecting",
        feeds: Kind::set(&[Kind::ConnectFailed]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; ErrorTpBtf @ At::TpBtf("inet_sk_error_report")),
            rung!(&[Kprobe]; ErrorRawTp @ At::RawTp("inet_sk_error_report")),
            // Before 5.15.
            rung!(&[Fentry]; ErrorFentry @ At::Fentry("sock_def_error_report")),
            rung!(&[Kprobe]; ErrorKprobe @ At::Kprobe("sock_def_error_report")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["the error of a connect that ICMP refused and whose caller closed: `closed_by_caller`"],
            },
        ],
    },
    Row {
        name: "the peer's window is closed",
        feeds: Kind::set(&[Kind::WindowStalled]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; WindowFentry @ At::Fentry("tcp_send_probe0")),
            rung!(&[Kprobe]; WindowKprobe @ At::Kprobe("tcp_send_probe0")),
            rung!(&[Tracepoint]; WindowRawTp @ At::RawTp("timer_expire_entry")),
        ],
    },
    Row {
        name: "a writer waits for the send buffer",
        feeds: Kind::set(&[Kind::SndbufLimited]),
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                WaitMemoryFexit @ At::Fexit("sk_stream_wait_memory"),
                WaitMemoryFentry @ At::Fentry("sk_stream_wait_memory")),
            rung!(&[Kprobe];
                WaitMemoryKretprobe @ At::Kretprobe("sk_stream_wait_memory"),
                WaitMemoryKprobe @ At::Kprobe("sk_stream_wait_memory")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["`sndbuf_limited`: that a writer waits for room in the send buffer"],
            },
        ],
    },
    Row {
        name: "a segment: written",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbWrittenFentry @ At::Fentry("tcp_sendmsg")),
            rung!(&[Kprobe]; SkbWrittenKprobe @ At::Kprobe("tcp_sendmsg")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["when a segment's bytes were written, and by which process"],
            },
        ],
    },
    Row {
        name: "a segment: TCP sends it",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbTransmitFentry @ At::Fentry("__tcp_transmit_skb")),
            rung!(&[Kprobe]; SkbTransmitKprobe @ At::Kprobe("__tcp_transmit_skb")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["a segment before the device has it: TCP's and IP's headers are there already"],
            },
        ],
    },
    Row {
        name: "a segment: to IP",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                SkbToIpFentry4 @ At::Fentry("ip_queue_xmit"), SkbToIpFentry6 @ At::Fentry("inet6_csk_xmit")),
            rung!(&[Kprobe];
                SkbToIpKprobe4 @ At::Kprobe("ip_queue_xmit"), SkbToIpKprobe6 @ At::Kprobe("inet6_csk_xmit")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a segment: from IP",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                SkbFromIpFentry4 @ At::Fentry("ip_finish_output2"), SkbFromIpFentry6 @ At::Fentry("ip6_finish_output2")),
            rung!(&[Kprobe];
                SkbFromIpKprobe4 @ At::Kprobe("ip_finish_output2"), SkbFromIpKprobe6 @ At::Kprobe("ip6_finish_output2")),
            // Where a compiler has the first two for itself.
            rung!(&[Fentry]; SkbOutputFentry4 @ At::Fentry("ip_output"), SkbOutputFentry6 @ At::Fentry("ip6_output")),
            rung!(&[Kprobe]; SkbOutputKprobe4 @ At::Kprobe("ip_output"), SkbOutputKprobe6 @ At::Kprobe("ip6_output")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a segment: at the device",
        feeds: STEPS,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                SkbToDeviceTpBtf @ At::TpBtf("net_dev_queue"), SkbXmitTpBtf @ At::TpBtf("net_dev_start_xmit"),
                SkbNetifRxTpBtf @ At::TpBtf("netif_rx"), SkbReceivedTpBtf @ At::TpBtf("netif_receive_skb")),
            rung!(&[Kprobe];
                SkbToDeviceRawTp @ At::RawTp("net_dev_queue"), SkbXmitRawTp @ At::RawTp("net_dev_start_xmit"),
                SkbNetifRxRawTp @ At::RawTp("netif_rx"), SkbReceivedRawTp @ At::RawTp("netif_receive_skb")),
        ],
    },
    Row {
        name: "a segment: IP receives it",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbIpRcvFentry4 @ At::Fentry("ip_rcv_core"), SkbIpRcvFentry6 @ At::Fentry("ip6_rcv_core")),
            rung!(&[Kprobe]; SkbIpRcvKprobe4 @ At::Kprobe("ip_rcv_core"), SkbIpRcvKprobe6 @ At::Kprobe("ip6_rcv_core")),
            // What a device hands over many at a time does not pass there.
            rung!(&[Fentry]; SkbIpRcvOneFentry4 @ At::Fentry("ip_rcv"), SkbIpRcvOneFentry6 @ At::Fentry("ipv6_rcv")),
            rung!(&[Kprobe]; SkbIpRcvOneKprobe4 @ At::Kprobe("ip_rcv"), SkbIpRcvOneKprobe6 @ At::Kprobe("ipv6_rcv")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["a segment between the device that received it and the reader"],
            },
        ],
    },
    Row {
        name: "a segment: TCP receives it",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbTcpRcvFentry4 @ At::Fentry("tcp_v4_rcv"), SkbTcpRcvFentry6 @ At::Fentry("tcp_v6_rcv")),
            rung!(&[Kprobe]; SkbTcpRcvKprobe4 @ At::Kprobe("tcp_v4_rcv"), SkbTcpRcvKprobe6 @ At::Kprobe("tcp_v6_rcv")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a segment: into the backlog",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbBacklogFentry @ At::Fentry("tcp_add_backlog")),
            rung!(&[Kprobe]; SkbBacklogKprobe @ At::Kprobe("tcp_add_backlog")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "a segment: into the receive queue",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry]; SkbQueuedFexit @ At::Fexit("tcp_queue_rcv")),
            rung!(&[Kprobe];
                SkbQueuedKretprobe @ At::Kretprobe("tcp_queue_rcv"), SkbQueuedKprobe @ At::Kprobe("tcp_queue_rcv")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[
                    "a segment that is merged into the one in front of it in the receive queue: its end is not seen",
                ],
            },
        ],
    },
    Row {
        name: "a segment: read",
        feeds: STEPS,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Tracepoint]; SkbReadTpBtf @ At::TpBtf("skb_copy_datagram_iovec")),
            rung!(&[Kprobe]; SkbReadRawTp @ At::RawTp("skb_copy_datagram_iovec")),
        ],
    },
    Row {
        name: "an sk_buff is allocated",
        feeds: SINGLY,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                SkbAllocFexitSecond @ At::Fexit("__alloc_skb"), SkbAllocFexit @ At::Fexit("__alloc_skb"),
                SkbCloneFexitSecond @ At::Fexit("skb_clone"), SkbCloneFexit @ At::Fexit("skb_clone")),
            rung!(&[Kprobe];
                SkbAllocKretprobe @ At::Kretprobe("__alloc_skb"), SkbCloneKretprobe @ At::Kretprobe("skb_clone"),
                SkbAllocKprobe @ At::Kprobe("__alloc_skb"), SkbCloneKprobe @ At::Kprobe("skb_clone")),
            rung!(&[Tracepoint];
                SkbPairNodeRawTp @ At::RawTp("kmem_cache_alloc_node"),
                SkbPairNodeRawTpSecond @ At::RawTp("kmem_cache_alloc_node"),
                SkbPairNodeRawTpThird @ At::RawTp("kmem_cache_alloc_node"); cannot: [PAIRS_ONLY]),
            rung!(&[Tracepoint];
                SkbPairRawTp @ At::RawTp("kmem_cache_alloc"),
                SkbPairRawTpSecond @ At::RawTp("kmem_cache_alloc"),
                SkbPairRawTpThird @ At::RawTp("kmem_cache_alloc"); cannot: [PAIRS_ONLY]),
        ],
    },
    Row {
        name: "an sk_buff is allocated for a socket",
        feeds: SINGLY,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                SkbStreamFexitSecond @ At::Fexit("tcp_stream_alloc_skb"),
                SkbStreamFexit @ At::Fexit("tcp_stream_alloc_skb")),
            rung!(&[Fentry];
                SkbOldStreamFexitSecond @ At::Fexit("sk_stream_alloc_skb"),
                SkbOldStreamFexit @ At::Fexit("sk_stream_alloc_skb")),
            rung!(&[Kprobe];
                SkbStreamKretprobe @ At::Kretprobe("tcp_stream_alloc_skb"),
                SkbStreamKprobe @ At::Kprobe("tcp_stream_alloc_skb")),
            rung!(&[Kprobe];
                SkbOldStreamKretprobe @ At::Kretprobe("sk_stream_alloc_skb"),
                SkbOldStreamKprobe @ At::Kprobe("sk_stream_alloc_skb")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["whose an sk_buff is that was never sent"],
            },
        ],
    },
    Row {
        name: "an sk_buff is allocated by a driver",
        feeds: SINGLY,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                SkbNapiFexit @ At::Fexit("napi_alloc_skb"), SkbNapiBuildFexit @ At::Fexit("napi_build_skb"),
                SkbBuildFexit @ At::Fexit("build_skb"), SkbInnerBuildFexit @ At::Fexit("__build_skb"),
                SkbSlabBuildFexit @ At::Fexit("slab_build_skb")),
            rung!(&[Fentry];
                SkbOldNapiFexit @ At::Fexit("__napi_alloc_skb"), SkbNapiBuildFexit @ At::Fexit("napi_build_skb"),
                SkbBuildFexit @ At::Fexit("build_skb"), SkbInnerBuildFexit @ At::Fexit("__build_skb")),
            rung!(&[Fentry];
                SkbOldNapiFexit @ At::Fexit("__napi_alloc_skb"),
                SkbBuildFexit @ At::Fexit("build_skb"), SkbInnerBuildFexit @ At::Fexit("__build_skb")),
            rung!(&[Kprobe];
                SkbNapiKretprobe @ At::Kretprobe("napi_alloc_skb"), SkbNapiBuildKretprobe @ At::Kretprobe("napi_build_skb"),
                SkbBuildKretprobe @ At::Kretprobe("build_skb"), SkbInnerBuildKretprobe @ At::Kretprobe("__build_skb"),
                SkbSlabBuildKretprobe @ At::Kretprobe("slab_build_skb"),
                SkbNapiKprobe @ At::Kprobe("napi_alloc_skb"), SkbNapiBuildKprobe @ At::Kprobe("napi_build_skb"),
                SkbBuildKprobe @ At::Kprobe("build_skb"), SkbInnerBuildKprobe @ At::Kprobe("__build_skb"),
                SkbSlabBuildKprobe @ At::Kprobe("slab_build_skb")),
            rung!(&[Kprobe];
                SkbOldNapiKretprobe @ At::Kretprobe("__napi_alloc_skb"), SkbNapiBuildKretprobe @ At::Kretprobe("napi_build_skb"),
                SkbBuildKretprobe @ At::Kretprobe("build_skb"), SkbInnerBuildKretprobe @ At::Kretprobe("__build_skb"),
                SkbOldNapiKprobe @ At::Kprobe("__napi_alloc_skb"), SkbNapiBuildKprobe @ At::Kprobe("napi_build_skb"),
                SkbBuildKprobe @ At::Kprobe("build_skb"), SkbInnerBuildKprobe @ At::Kprobe("__build_skb")),
            rung!(&[Kprobe];
                SkbOldNapiKretprobe @ At::Kretprobe("__napi_alloc_skb"),
                SkbBuildKretprobe @ At::Kretprobe("build_skb"), SkbInnerBuildKretprobe @ At::Kretprobe("__build_skb"),
                SkbOldNapiKprobe @ At::Kprobe("__napi_alloc_skb"),
                SkbBuildKprobe @ At::Kprobe("build_skb"), SkbInnerBuildKprobe @ At::Kprobe("__build_skb")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["sk_buffs of what arrives from a network card: they come from a cache of their own"],
            },
        ],
    },
    Row {
        name: "an sk_buff is freed",
        feeds: SINGLY,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry];
                SkbFreeFentrySecond @ At::Fentry("skb_release_head_state"),
                SkbFreeFentry @ At::Fentry("skb_release_head_state")),
            rung!(&[Kprobe]; SkbFreeKprobe @ At::Kprobe("skb_release_head_state")),
            rung!(&[Tracepoint];
                SkbPairFreeRawTp @ At::RawTp("kmem_cache_free"),
                SkbPairFreeRawTpSecond @ At::RawTp("kmem_cache_free"),
                SkbPairFreeRawTpThird @ At::RawTp("kmem_cache_free")),
        ],
    },
    Row {
        name: "an sk_buff is freed by who has a part of it already",
        feeds: SINGLY,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry, Kprobe];
                SkbRestKprobe @ At::Kprobe("__consume_stateless_skb"),
                SkbStolenKprobe @ At::Kprobe("napi_skb_free_stolen_head")),
            rung!(&[Fentry, Kprobe];
                SkbRestKprobe @ At::Kprobe("__consume_stateless_skb");
                cannot: ["the end of an sk_buff whose data GRO took over, before its address is used again"]),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &[],
            },
        ],
    },
    Row {
        name: "an sk_buff is handed to a device",
        feeds: SINGLY,
        need: Need::Required,
        rungs: &[
            rung!(&[Fentry, Tracepoint];
                SkbQueuedTpBtf @ At::TpBtf("net_dev_queue"), SkbQueuedTpBtfSecond @ At::TpBtf("net_dev_queue")),
            rung!(&[Kprobe]; SkbQueuedRawTp @ At::RawTp("net_dev_queue")),
        ],
    },
    Row {
        name: "a socket takes an sk_buff that arrived",
        feeds: SINGLY,
        need: Need::Optional,
        rungs: &[
            rung!(&[Fentry];
                SkbRcv4FentrySecond @ At::Fentry("tcp_v4_do_rcv"), SkbRcv4Fentry @ At::Fentry("tcp_v4_do_rcv"),
                SkbRcv6FentrySecond @ At::Fentry("tcp_v6_do_rcv"), SkbRcv6Fentry @ At::Fentry("tcp_v6_do_rcv")),
            rung!(&[Kprobe];
                SkbRcv4Kprobe @ At::Kprobe("tcp_v4_do_rcv"), SkbRcv6Kprobe @ At::Kprobe("tcp_v6_do_rcv")),
            Rung {
                classes: &[Tracepoint],
                hooks: &[],
                cannot: &["which socket has an sk_buff that arrived"],
            },
        ],
    },
    Row {
        name: "what is there at the start",
        feeds: SYN_QUEUE | ACCEPT | Kind::set(&[Kind::WindowStalled, Kind::Closed]),
        need: Need::Optional,
        rungs: &[rung!(ANY; SnapshotIter @ At::Iter("tcp"))],
    },
    Row {
        name: "sockets whose end nobody saw",
        feeds: ALL,
        need: Need::Optional,
        rungs: &[rung!(ANY;
            LivesIter @ At::Iter("bpf_map_elem"), ListenersIter @ At::Iter("bpf_map_elem"))],
    },
];
