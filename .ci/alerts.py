"""Tests of deploy/prometheus/alerts.yaml, for `promtool test rules`, on standard output (JSON is YAML).

Each alert is raised by series that call for it, and is silent by those of a service in order.
"""

import json
import sys

import yaml

MINUTES = 7 * 60
"""How long the series are, one sample a minute: longer than the longest window of an alert."""


def steady(value):
    return f"{value}x{MINUTES}"


def growing(step):
    return f"0+{step}x{MINUTES}"


def late(job, share):
    """The histogram of first attempts, 600 a minute, of which this share is late."""
    name = "kallima_first_attempt_delay_seconds"
    return {
        f'{name}_bucket{{job="{job}",le="5.0"}}': growing(round(600 * (1 - share))),
        f'{name}_count{{job="{job}"}}': growing(600),
    }


def requests(failing):
    return {
        'kallima_requests_total{operation="publish_event",status="202"}': growing(1000 - failing),
        'kallima_requests_total{operation="publish_event",status="503"}': growing(failing),
        'kallima_requests_total{operation="get_readiness",status="503"}': growing(20),
    }


def attempts(delivered):
    return {
        'kallima_attempts_total{trigger="automatic",outcome="delivered"}': growing(delivered),
        'kallima_attempts_total{trigger="automatic",outcome="timeout"}': growing(100 - delivered),
    }


def waits(quick):
    """The histogram of the pool's waits, 100 a minute, of which so many are quick."""
    name = 'kallima_database_wait_seconds_bucket{pool="engine",le="%s"}'
    return {name % "0.1": growing(quick), name % "1.0": growing(100), name % "+Inf": growing(100)}


# Of each alert: what raises it, and what just does not.
TRIALS = {
    "KallimaDown": ({'up{job="kallima-webhooks"}': steady(0)}, {'up{job="kallima-webhooks"}': steady(1)}),
    "KallimaDatabaseDown": ({"kallima_database_up": steady(0)}, {"kallima_database_up": steady(1)}),
    "KallimaDeliveriesLate": (
        {"kallima_oldest_owed_age_seconds": steady(61)},
        {"kallima_oldest_owed_age_seconds": steady(59)},
    ),
    "KallimaFirstAttemptsSlowFast": (late("k", 0.15), late("k", 0.14)),
    "KallimaFirstAttemptsSlowSlow": (late("k", 0.035), late("k", 0.025)),
    "KallimaRequestsFailing": (requests(11), requests(9)),
    "KallimaAttemptsFailing": (attempts(49), attempts(51)),
    "KallimaMasterKeysWrong": ({"kallima_master_keys_wrong": steady(1)}, {"kallima_master_keys_wrong": steady(0)}),
    "KallimaRequestsSaturated": (
        {"kallima_requests_running": steady(250), "kallima_requests_max": steady(256)},
        {"kallima_requests_running": steady(200), "kallima_requests_max": steady(256)},
    ),
    "KallimaAttemptsSaturated": (
        {"kallima_attempts_running": steady(500), "kallima_attempts_max": steady(512)},
        {"kallima_attempts_running": steady(400), "kallima_attempts_max": steady(512)},
    ),
    "KallimaPoolSaturated": (waits(90), waits(100)),
    "KallimaFilesSaturated": (
        {"process_open_fds": steady(950), "process_max_fds": steady(1000)},
        # No limit is known.
        {"process_open_fds": steady(950), "process_max_fds": steady(0)},
    ),
    "KallimaNodeMissing": (
        {"kallima_nodes_alive": f"3x{MINUTES - 20} 2x20"},
        {"kallima_nodes_alive": steady(3)},
    ),
    "KallimaTakeover": (
        {"kallima_takeovers_total": f"0x{MINUTES - 3} 1x3"},
        {"kallima_takeovers_total": steady(1)},
    ),
    "KallimaLeasesLost": (
        {"kallima_leases_lost_total": f"0x{MINUTES - 3} 2x3"},
        {"kallima_leases_lost_total": steady(2)},
    ),
    "KallimaClockSkew": (
        {"kallima_clock_skew_seconds": steady("-2.5")},
        {"kallima_clock_skew_seconds": steady("-1.5")},
    ),
    "KallimaRetentionStale": (
        # At the series' end, in seconds since the start.
        {"kallima_retention_last_success_timestamp_seconds": steady(MINUTES * 60 - 7900)},
        # Before the first pass.
        {"kallima_retention_last_success_timestamp_seconds": steady(0)},
    ),
    "KallimaRetentionPaused": ({"kallima_retention_paused": steady(1)}, {"kallima_retention_paused": steady(0)}),
    "KallimaSnapshotHeld": (
        {"kallima_oldest_snapshot_age_seconds": steady(0), "kallima_queue_dead_rows": steady(1000001)},
        {"kallima_oldest_snapshot_age_seconds": steady(3500), "kallima_queue_dead_rows": steady(1000)},
    ),
    "KallimaWebhooksDisabled": (
        {'kallima_webhooks_disabled_total{reason="failing"}': growing("0.2")},
        {'kallima_webhooks_disabled_total{reason="failing"}': growing("0.1")},
    ),
    "KallimaTelemetryLost": (
        {"kallima_log_lines_dropped_total": steady(0), "kallima_spans_dropped_total": growing(1)},
        {"kallima_log_lines_dropped_total": steady(5), "kallima_spans_dropped_total": steady(5)},
    ),
}


def query(alert, series, firing):
    """A test by which the alert has as many instances."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{MINUTES}m",
                "exp_samples": [{"value": firing}],
            }
        ],
    }


def main():
    with open(sys.argv[1]) as file:
        (group,) = yaml.safe_load(file)["groups"]
    alerts = [rule["alert"] for rule in group["rules"]]
    if alerts != list(TRIALS):
        sys.exit(f"alerts and trials differ: {set(alerts) ^ set(TRIALS) or 'in their order'}")
    tests = []
    for alert, (loud, quiet) in TRIALS.items():
        tests += [query(alert, loud, 1), query(alert, quiet, 0)]
    json.dump({"rule_files": [sys.argv[1]], "evaluation_interval": "1m", "tests": tests}, sys.stdout)


main()
