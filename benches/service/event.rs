//! The event that the benchmarks publish and deliver: of one type, and different only by a number in its data.

/// Its type.
pub(crate) const EVENT_TYPE: &str = "humanization.failed";

/// Its data, before and after the number.
pub(crate) fn data_around_number() -> (&'static str, &'static str) {
    (
        "{\"job_id\":\"00000000-0000-7000-8000-",
        "\",\"job_type\":\"humanization\",\"name\":\"4D5, first round\",\"error_code\":\"invalid_sequence\",\
         \"error_message\":\"The heavy chain has no recognizable framework: neither its first nor its second half aligns \
         with a germline of any species that is known to us.\",\"retryable\":false}",
    )
}

/// The payload of the event with this number: about 450 bytes.
pub(crate) fn payload(number: u64) -> String {
    let (before, after) = data_around_number();
    format!(
        "{{\"id\":\"evt_01M86EMJQ7E3JRXNNT6G8QDYDB\",\"object\":\"event\",\"type\":\"{EVENT_TYPE}\",\
         \"created_at\":\"2026-04-23T10:00:00.000+00:00\",\"data\":{before}{number:012x}{after}}}"
    )
}
