<?php
// A PHP that stays: one JSON question a line on stdin, one JSON answer a line on stdout. For tests that ask PHP thousands of times.
//
//   {"op": "unserialize", "bytes": B}             serialize(unserialize(B))
//   {"op": "decode", "handler": H, "bytes": B}    what a session of this format holds: serialize($_SESSION), and session_encode() of it
//
// Answer: {"ok": bool, "bytes": text or null, "encoded": text or null, "warned": bool, "said": [text, ...]}. Bytes travel as Latin-1,
// one character each. Answers are written past PHP's output layer: what it counts as output would forbid sessions.

$up = [];
for ($i = 128; $i < 256; $i++) {
    $up[chr($i)] = chr(0xC0 | $i >> 6) . chr(0x80 | $i & 0x3F);
}
$down = array_flip($up);
$said = [];
$warned = false;
set_error_handler(function (int $level, string $text) use (&$said, &$warned): bool {
    $warned = $warned || !($level & (E_DEPRECATED | E_USER_DEPRECATED));
    $said[] = $text;
    return true;
});

/** What a session in this format holds: [true, values, encoding], or [false, null, null]. The session itself is thrown away. */
function decoded(string $handler, string $bytes): array
{
    ini_set('session.serialize_handler', $handler);
    session_id('worker');
    session_start();
    try {
        $ok = session_decode($bytes);
        $encoded = $ok ? session_encode() : null;
        return [$ok, $ok ? serialize($_SESSION) : null, $encoded === false ? null : $encoded];
    } finally {
        if (session_status() === PHP_SESSION_ACTIVE) {
            session_destroy();
        }
    }
}

while (($line = fgets(STDIN)) !== false) {
    $question = json_decode($line, true);
    $bytes = strtr($question['bytes'] ?? '', $down);
    [$said, $warned, $answer] = [[], false, [false, null, null]];
    try {
        switch ($question['op'] ?? null) {
            case 'unserialize':
                $value = unserialize($bytes);
                $ok = $value !== false || $bytes === 'b:0;';
                $answer = [$ok, $ok ? serialize($value) : null, null];
                break;
            case 'decode':
                $answer = decoded($question['handler'], $bytes);
                break;
        }
    } catch (Throwable $thrown) {
        $warned = true;
        $said[] = get_class($thrown) . ': ' . $thrown->getMessage();
    }
    foreach ($answer as &$text) {
        $text = is_string($text) ? strtr($text, $up) : $text;
    }
    unset($text);
    $said = array_map(fn ($text) => strtr($text, $up), $said);
    $answer = ['ok' => $answer[0], 'bytes' => $answer[1], 'encoded' => $answer[2], 'warned' => $warned, 'said' => $said];
    fwrite(STDOUT, json_encode($answer, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE) . "\n");
}
