<?php
// Asks the sample about one request, as `vectors.py` describes it.
require __DIR__ . '/sample.php';

$headers = [];
foreach (array_filter(explode("\r\n", file_get_contents($argv[1]))) as $line) {
    [$name, $value] = explode(': ', $line, 2);
    $headers[$name] = $value;
}
$now = isset($argv[3]) ? (int) $argv[3] : null;
exit(verify(getenv('SECRET'), $headers, file_get_contents($argv[2]), $now) ? 0 : 10);
