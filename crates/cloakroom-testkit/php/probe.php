<?php
// The probe, PHP's side: a router script for `php -S` in which PHP's own session_* functions answer.
//
// Request: a JSON body {"ini": {NAME: TEXT, ...}, "ops": [[OP, ARGUMENT...], ...]}. Reply: {"results": [{"value": V}, ...]}, one per op.
// cloakroom's own probe speaks the same language, so one scenario can be played against both.
//
// What was settled here, where the contract leaves room:
//  - Every string travels as Latin-1: one JSON character is one byte, in both directions, also in `ini`, names, ids and `output`.
//  - `ini` is ini_set() at the very beginning, in the order given, so what PHP allows only in php.ini (PERDIR) or finds invalid is
//    refused and the former value stays. The refused names are listed in the reply under "refused" (left out when there are none).
//  - "warned" means: E_WARNING or E_NOTICE was raised (also by user code), or something was thrown. E_DEPRECATED does not count.
//  - What throws has the value null; so has an op that PHP has no function for (cloakroom's own verbs), and it is warned.
//  - A session open after the last op is written by PHP's own shutdown, after the body was printed but before the connection is closed;
//    the reply has no Content-Length, so its end is the end of the connection. An explicit session_write_close() would not do: where a
//    value cannot be encoded it stores what it has so far, while the shutdown leaves the old data. What PHP says then is not reported.
//  - Keys: a JSON number is an integer key; a string is PHP's business ("5" becomes the integer).
//  - The superglobal with server variables is never mentioned in this file: PHP fills it lazily, and session.referer_check reads it.
// With PROBE_SAID=1 in the environment a list "said" stands beside "results": per op, what PHP said. It is for the reader.

header('Content-Type: application/json');

/** Latin-1 to UTF-8 or, with $back, UTF-8 to Latin-1, in strings at any depth; other values stay. */
function latin1($value, bool $back)
{
    static $up = null, $down = null;
    if ($up === null) {
        for ($i = 128; $i < 256; $i++) {
            $up[chr($i)] = chr(0xC0 | $i >> 6) . chr(0x80 | $i & 0x3F);
        }
        $down = array_flip($up);
    }
    if (is_string($value)) {
        return strtr($value, $back ? $down : $up);
    }
    if (is_array($value)) {
        $out = [];
        foreach ($value as $k => $v) {
            $out[is_string($k) ? strtr($k, $back ? $down : $up) : $k] = latin1($v, $back);
        }
        return $out;
    }
    return $value;
}

/** What PHP said since it was last asked: [worth a "warned", the texts]. */
final class Said
{
    public static bool $warned = false;
    public static array $texts = [];

    public static function take(): array
    {
        $taken = [self::$warned, self::$texts];
        [self::$warned, self::$texts] = [false, []];
        return $taken;
    }

    public static function hear(int $level, string $text): bool
    {
        self::$warned = self::$warned || ($level & (E_WARNING | E_NOTICE | E_USER_WARNING | E_USER_NOTICE | E_RECOVERABLE_ERROR)) !== 0;
        $text = preg_replace('~' . preg_quote(__FILE__) . '(:\d+)?~', 'probe.php', $text);
        self::$texts[] = ($level & (E_DEPRECATED | E_USER_DEPRECATED) ? 'deprecated: ' : '') . $text;
        return true;
    }
}

/** One op, by its name: PHP's function behind it. */
function op(array $op)
{
    $name = $op[0] ?? null;
    $has = array_key_exists(1, $op);
    $arg = $op[1] ?? null;
    switch ($name) {
        case 'start': return $has ? session_start($arg) : session_start();
        case 'status': return session_status();
        case 'id': return session_id();
        case 'set_id': return session_id($arg);
        case 'name': return session_name();
        case 'set_name': return session_name($arg);
        case 'get':
            return isset($_SESSION) && is_array($_SESSION) && array_key_exists($arg, $_SESSION) ? serialize($_SESSION[$arg]) : null;
        case 'set':
            $_SESSION[$arg] = unserialize($op[2]);
            return null;
        case 'unset':
            unset($_SESSION[$arg]);
            return null;
        case 'incr':
            $_SESSION[$arg] = ($_SESSION[$arg] ?? 0) + 1;
            return $_SESSION[$arg];
        case 'all': return isset($_SESSION) ? serialize($_SESSION) : null;
        case 'clear': return session_unset();
        case 'write_close': return session_write_close();
        case 'abort': return session_abort();
        case 'reset': return session_reset();
        case 'destroy': return session_destroy();
        case 'regenerate': return $has ? session_regenerate_id($arg) : session_regenerate_id();
        case 'create_id': return $has ? session_create_id($arg) : session_create_id();
        case 'gc': return session_gc();
        case 'encode': return session_encode();
        case 'decode': return session_decode($arg);
        case 'cookie_params': return session_get_cookie_params();
        case 'set_cookie_params': return session_set_cookie_params($arg);
        case 'cache_limiter': return $has ? session_cache_limiter($arg) : session_cache_limiter();
        case 'cache_expire': return $has ? session_cache_expire($arg) : session_cache_expire();
        case 'save_path': return $has ? session_save_path($arg) : session_save_path();
        case 'module_name': return session_module_name();
        case 'sleep':
            usleep($arg * 1000);
            return null;
        case 'output':
            echo $arg;
            flush();
            return null;
    }
    trigger_error('no such op', E_USER_WARNING);
    return null;
}

set_error_handler(['Said', 'hear']);
$request = latin1(json_decode(file_get_contents('php://input'), true), true);

$refused = [];
foreach ($request['ini'] ?? [] as $name => $text) {
    try {
        $taken = ini_set($name, $text) !== false;
    } catch (Throwable $thrown) {
        $taken = false;
    }
    if (!$taken) {
        $refused[] = $name;
    }
}
Said::take();

$reply = ['results' => []];
$said = [];
foreach ($request['ops'] ?? [] as $op) {
    $value = null;
    try {
        $value = op($op);
    } catch (Throwable $thrown) {
        Said::hear(E_WARNING, get_class($thrown) . ': ' . $thrown->getMessage());
    }
    [$warned, $texts] = Said::take();
    $reply['results'][] = ['value' => $value] + ($warned ? ['warned' => true] : []);
    $said[] = $texts;
}
if ($refused) {
    $reply['refused'] = $refused;
}
if (getenv('PROBE_SAID')) {
    $reply['said'] = $said;
}
// json_encode() obeys serialize_precision too; the session, written last, needs the request's own.
$precision = ini_set('serialize_precision', '-1');
$body = json_encode(latin1($reply, false), JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
ini_set('serialize_precision', $precision);
ini_set('display_errors', '0');
echo $body;
