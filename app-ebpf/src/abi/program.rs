//! The programs of the object, by name. A program's number is in each event as `via`.

macro_rules! programs {
    ($($name:ident = $symbol:literal,)*) => {
        /// A program of the object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Program {
            $(#[doc = concat!("`", $symbol, "`")] $name,)*
        }

        impl Program {
            /// Every program.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The function's name in the object.
            #[must_use]
            pub const fn symbol(self) -> &'static str {
                match self { $(Self::$name => $symbol,)* }
            }
        }
    };
}

programs! {
    CookieSockCreate = "cookie_sock_create",
    CookieSockOps = "cookie_sock_ops",
    BindFexit4 = "bind_fexit4",
    BindFexit6 = "bind_fexit6",
    BindKprobe = "bind_kprobe",
    BindKretprobe = "bind_kretprobe",
    BindCgroup4 = "bind_cgroup4",
    BindCgroup6 = "bind_cgroup6",
    ListenAskedFentry = "listen_asked_fentry",
    ListenAskedKprobe = "listen_asked_kprobe",
    ListenAskedTp = "listen_asked_tp",
    ListenFexitSk = "listen_fexit_sk",
    ListenFexitSocket = "listen_fexit_socket",
    ListenKprobeSk = "listen_kprobe_sk",
    ListenKprobeSocket = "listen_kprobe_socket",
    ListenKretprobe = "listen_kretprobe",
    ListenTp = "listen_tp",
    ListenSockOps = "listen_sock_ops",
    ConnectFentry = "connect_fentry",
    ConnectKprobe = "connect_kprobe",
    ConnectSockOps = "connect_sock_ops",
    ConnectFailFexit4 = "connect_fail_fexit4",
    ConnectFailFexit6 = "connect_fail_fexit6",
    ConnectFailKprobe = "connect_fail_kprobe",
    ConnectFailKretprobe = "connect_fail_kretprobe",
    ConnectEnterTp = "connect_enter_tp",
    ConnectFailTp = "connect_fail_tp",
    StateTpBtf = "state_tp_btf",
    StateTpBtfSecond = "state_tp_btf_second",
    StateRawTp = "state_raw_tp",
    StateRawTpSecond = "state_raw_tp_second",
    DestroyTpBtf = "destroy_tp_btf",
    DestroyTpBtfSecond = "destroy_tp_btf_second",
    DestroyRawTp = "destroy_raw_tp",
    DestroyRawTpSecond = "destroy_raw_tp_second",
    AcceptFexit = "accept_fexit",
    AcceptKprobe = "accept_kprobe",
    AcceptKretprobe = "accept_kretprobe",
    AcceptEnterTp = "accept_enter_tp",
    AcceptTp = "accept_tp",
    AcceptTpBtf = "accept_tp_btf",
    AcceptLateFentry = "accept_late_fentry",
    AcceptLateKprobe = "accept_late_kprobe",
    SnapshotIter = "snapshot_iter",
    SynFentry = "syn_fentry",
    SynFexit = "syn_fexit",
    SynKprobe = "syn_kprobe",
    SynKretprobe = "syn_kretprobe",
    SynAllocFexit = "syn_alloc_fexit",
    SynAllocKretprobe = "syn_alloc_kretprobe",
    SynConsumedTpBtf = "syn_consumed_tp_btf",
    SynackFentry = "synack_fentry",
    SynackKprobe = "synack_kprobe",
    SynackAgainTpBtf = "synack_again_tp_btf",
    SynackAgainRawTp = "synack_again_raw_tp",
    SynQueueFexit = "syn_queue_fexit",
    SynQueueKprobe = "syn_queue_kprobe",
    SynQueueKretprobe = "syn_queue_kretprobe",
    SynQueueSockOps = "syn_queue_sock_ops",
    TimerFentry = "timer_fentry",
    TimerFexit = "timer_fexit",
    TimerKprobe = "timer_kprobe",
    TimerKretprobe = "timer_kretprobe",
    TimerRawTp = "timer_raw_tp",
    TimerExitRawTp = "timer_exit_raw_tp",
    CheckFentry = "check_fentry",
    CheckFexit = "check_fexit",
    CheckKprobe = "check_kprobe",
    CheckKretprobe = "check_kretprobe",
    RemovedFentry = "removed_fentry",
    RemovedPutFentry = "removed_put_fentry",
    RemovedKprobe = "removed_kprobe",
    DroppedTpBtf = "dropped_tp_btf",
    CookieFentry4 = "cookie_fentry4",
    CookieFentry6 = "cookie_fentry6",
    CookieFexit4 = "cookie_fexit4",
    CookieFexit6 = "cookie_fexit6",
    CookieKprobe = "cookie_kprobe",
    CookieKretprobe = "cookie_kretprobe",
    CookieDroppedTpBtf = "cookie_dropped_tp_btf",
    CompletedFentry = "completed_fentry",
    CompletedKprobe = "completed_kprobe",
    AddingFentry = "adding_fentry",
    AddingKprobe = "adding_kprobe",
    AcceptQueueSockOps = "accept_queue_sock_ops",
    SocketsIter = "sockets_iter",
}
