//! The cases.

mod accept;
mod capacity;
mod connect;
mod data;
mod filters;
mod flood;
mod handoff;
mod listen;
mod loopback;
mod loss;
mod process;
mod queues;
mod queues_view;
mod rungs;
mod serve;
mod skb;
mod skb_allocs;
mod sockets;
mod sockets_queues;
mod sockets_timers;
mod tasks;
mod trouble;
mod unseen;

use crate::harness::Class;

/// A case for each class of hooks.
pub type Case = fn(Class);

/// What depends on hooks, and takes a tracer that others use, too: where it begins with a new namespace and asks for kinds of
/// events only.
pub const SHARING: &[(&str, Case)] = &[
    ("who_closed_first", loopback::who_closed_first),
    ("softirq_has_no_pid", loopback::softirq_has_no_pid),
    ("refused", connect::refused),
    ("black_hole", connect::black_hole),
    ("closed_early", connect::closed_early),
    ("no_route", connect::no_route),
    ("mapped", listen::mapped),
    ("listening", listen::listening),
    ("would_block", accept::would_block),
    ("mptcp", accept::mptcp),
    ("via", rungs::via),
    ("data_drops_closed_port", data::drops::closed_port),
    ("data_drops_refused_segments", data::drops::refused_segments),
    ("data_drops_at_a_listener", data::drops::at_a_listener),
    ("data_drops_qdisc", data::drops::qdisc),
    ("data_drops_last_hop", data::drops::last_hop),
    ("data_drops_nothing", data::drops::nothing_dropped),
    ("data_resets", data::resets::aborted),
    ("data_reset_reasons", data::reasons::given_up),
    ("data_resets_by_timer", data::resets::by_timer),
    ("data_resent", data::resent::unanswered),
    ("data_resent_without_data", data::resent::without_data),
    ("data_resent_hurried", data::resent::hurried),
    ("data_timers", data::resent::timers),
    ("data_window_stalled", data::window::stalled),
    ("data_window_waits", data::window::waits),
    ("queues_handshake", queues::accept_queue::handshake),
    ("queues_expired", queues::syn_queue::expired),
    ("queues_reset", queues::syn_queue::reset),
    ("queues_listener_closed", queues::syn_queue::listener_closed),
    ("queues_six_connects", queues::accept_queue::six_connects),
    ("queues_overflow_ignored", queues::accept_queue::overflow_ignored),
    ("queues_refused_ack", queues::accept_queue::refused_ack_is_one_line),
    ("queues_overflow_reset", queues::accept_queue::overflow_reset),
    ("queues_syn_queue_full", queues::syn_queue::syn_queue_full),
    ("queues_max_syn_backlog", queues::syn_queue::max_syn_backlog),
    ("queues_syn_queue_full_cookies", queues::cookies::syn_queue_full_cookies),
    ("queues_cookies", queues::cookies::cookies),
    ("queues_slow_acceptor", queues::accept_queue::slow_acceptor),
    ("queues_slow_path", queues::accept_queue::slow_path),
    ("queues_fastopen", queues::varieties::fastopen),
    ("queues_fastopen_early", queues::varieties::fastopen_early),
    ("queues_defer_accept", queues::varieties::defer_accept),
    ("queues_mapped", queues::varieties::mapped),
    ("queues_reuseport", queues::varieties::reuseport),
    ("queues_migrated", queues::varieties::migrated),
    ("queues_accept_fails", queues::waiting::accept_fails),
    ("queues_dead", queues::waiting::dead),
];

/// What depends on hooks and may share a tracer of who holds sockets.
pub const HOLDING: &[(&str, Case)] = &[
    ("handoff_503", handoff::served_503),
    ("handoff_prefork", handoff::models::prefork),
    ("handoff_threads", handoff::models::threads),
    ("handoff_fd_passing", handoff::models::fd_passing),
    ("handoff_double_fork_exec", handoff::models::double_fork_exec),
    ("handoff_inetd", handoff::models::inetd),
    ("handoff_activation", handoff::models::activation),
    ("handoff_pid_reuse", handoff::models::pid_reuse),
    ("handoff_untouched_copy", handoff::models::untouched_copy),
    ("handoff_handed_back", handoff::models::handed_back),
    ("handoff_bound_then_forked", handoff::models::bound_then_forked),
    ("handoff_child_without_it", handoff::models::child_without_it),
    ("findings_helper", handoff::findings::helper),
    ("queues_no_child", queues::waiting::no_child),
];

/// What depends on hooks.
pub const EACH_CLASS: &[(&str, Case)] = &[
    ("loopback_1009", loopback::exactly_1009),
    ("unseen_ends", unseen::ends),
    ("unseen_states", unseen::states),
    ("unseen_handshakes", unseen::handshakes),
    ("unseen_children", unseen::children),
    ("waiting_already", accept::waiting_already),
    ("bystanders", tasks::bystanders),
    ("filters", filters::each),
    ("filter_pid", filters::pid),
    ("doctor", rungs::doctor),
    ("queues_cancelled", queues::syn_queue::cancelled),
    ("queues_forged_cookie", queues::cookies::forged_cookie),
    ("queues_cookie_overflow", queues::cookies::cookie_overflow),
    ("queues_older", queues::syn_queue::older),
    ("queues_uring", queues::uring::accepts),
    ("queues_before", queues::accept_queue::before),
    ("handoff_older", handoff::older::connections),
    ("skb_every_layer", skb::every_layer),
    ("skb_merged", skb::merged),
    ("skb_copied", skb::copied),
    ("skb_chosen", skb::chosen),
    ("skb_of_process", skb::of_process),
    ("skb_drawing", skb::drawing),
    ("findings_of_serve", handoff::findings::of_serve),
    ("data_drops_full_receiver", data::drops::full_receiver),
    ("data_drops_summary", data::drops::summary),
    ("skb_allocs_997", skb_allocs::exactly_997),
    ("skb_allocs_unread", skb_allocs::unread),
    ("skb_allocs_filtered", skb_allocs::filtered),
    ("skb_allocs_each", skb_allocs::each),
    ("skb_allocs_table_full", skb_allocs::table_full),
];

/// What does not, and depends on the kernel.
pub const ONCE: &[(&str, fn())] = &[
    ("old_listener", accept::old_listener),
    ("rungs_busy_cpus", rungs::busy_cpus),
    ("rungs_without_tracefs", rungs::without_tracefs),
    ("rungs_without_cgroup_mount", rungs::without_cgroup_mount),
    ("ring_buffer_loss_is_counted", loss::ring_buffer),
    ("slow_output_loss_is_counted", loss::slow_output),
    ("full_table_is_counted", loss::socket_table),
    ("full_request_table_is_counted", loss::request_table),
    ("queues_expired_early", queues::syn_queue::expired_early),
    ("queues_time_wait_passes", queues::syn_queue::time_wait_passes),
    ("storm_balances", unseen::storm),
    ("reasons_explained", data::reasons::explained),
    ("syn_flood", flood::syn_flood),
    ("queues_in_a_flood", flood::queues_go_on),
    ("capacity_descriptors", capacity::descriptors),
    ("capacity_live_listener", capacity::live_listener),
    ("capacity_sysctls", capacity::sysctls),
    ("queues_rows", queues_view::rows_of_a_listener),
    ("queues_backlog", queues_view::backlog),
    ("queues_unseen", queues_view::unseen),
    ("skb_not_attached_otherwise", skb::not_attached_otherwise),
    ("fork_storm", handoff::storm::forks),
    ("sockets_exactly", sockets::exactly),
    ("sockets_many", sockets::many),
    ("sockets_timers", sockets_timers::each),
    ("sockets_queues_unread", sockets_queues::unread),
    ("sockets_queues_window_closed", sockets_queues::window_closed),
    ("sockets_queues_not_acknowledged", sockets_queues::not_acknowledged),
    ("sockets_queues_out_of_order", sockets_queues::out_of_order),
    ("sockets_queues_long", sockets_queues::long_queues),
    ("sockets_queues_age_of_unread", sockets_queues::age_of_unread),
    ("sockets_queues_dwell", sockets_queues::dwell::moving),
    ("privileges_are_given_up", process::privileges),
    ("kill_leaves_nothing", process::kill_leaves_nothing),
    ("three_capabilities", trouble::three_capabilities),
    ("no_root", trouble::no_root),
    ("no_btf", trouble::no_btf),
    ("hidden_addresses", trouble::hidden_addresses),
];

/// What does not depend on the kernel either: it runs on this machine's alone.
pub const NATIVE: &[(&str, fn())] = &[
    ("doctor_text", rungs::doctor_text),
    ("capacity_clients", capacity::clients),
    ("capacity_models", capacity::models),
    ("capacity_without_root", capacity::without_root),
    ("capacity_usage", capacity::usage),
    ("serve_witness", serve::witness),
    ("serve_limits", serve::limits),
    ("serve_mistakes", serve::mistakes),
    ("queues_blocks", queues_view::blocks),
    ("count_and_duration", process::count_and_duration),
    ("signals_end_with_a_summary", process::signals),
    ("closed_pipe_is_a_clean_end", process::closed_pipe),
    ("hostile_comm", process::hostile_comm),
    ("queues_reconcile", queues_view::reconcile_needs_whole_namespaces),
    ("text_columns_line_up", process::columns),
    ("usage_errors", trouble::usage),
    ("full_disk", trouble::full_disk),
    ("closed_stderr_is_no_panic", process::closed_stderr),
    ("unread_output_is_counted", process::unread_output),
    ("storm_ends_in_time", process::storm),
    ("server_gone", trouble::server_gone),
];
