<?php
// PHP as the judge: a resident process that answers requests over a pipe.
// A request is a tag byte, a 32-bit length and that many bytes; a reply is a length and bytes. Lists of strings are
// 32-bit lengths and bytes, one after another.

error_reporting(0);

class P { public $a = 1; protected $b = 2; private $c = 3; public $d; }
// One that keeps what it is given as it is given, and one that hands out a reference to what it has, shared or not.
class Kept { private $a = []; function __construct(array $a = []) { $this->a = $a; }
    function __serialize(): array { return $this->a; } function __unserialize(array $a): void { $this->a = $a; } }
class Ms { public $d; function __serialize(): array { return ['d' => &$this->d, 7 => 'seven']; }
    function __unserialize(array $a): void { $this->d = &$a['d']; } }
enum Suit { case Hearts; case Spades; }
eval('class OldStyle implements Serializable { public $v = ""; function serialize() { return $this->v; } function unserialize($s) { $this->v = $s; } }');

class Nowhere implements SessionHandlerInterface {
    function open($path, $name): bool { return true; }
    function close(): bool { return true; }
    function read($id): string|false { return ''; }
    function write($id, $data): bool { return true; }
    function destroy($id): bool { return true; }
    function gc($max): int|false { return 0; }
}
session_set_save_handler(new Nowhere, false);

function begin(string $handler): void {
    if (session_status() === PHP_SESSION_ACTIVE) session_abort();
    ini_set('session.serialize_handler', $handler);
    session_id('abcdefghijklmnopqrstuvwxyz');
    session_start();
    $_SESSION = [];
}

function decode(string $handler, string $bytes): bool {
    begin($handler);
    return session_decode($bytes);
}

function pack_list(array $list): string {
    $out = '';
    foreach ($list as $s) $out .= pack('V', strlen($s)) . $s;
    return $out;
}
function unpack_list(string $bytes): array {
    for ($list = [], $at = 0; $at < strlen($bytes); $at += 4 + $n) {
        $n = unpack('V', $bytes, $at)[1];
        $list[] = substr($bytes, $at + 4, $n);
    }
    return $list;
}

// What a session is, with everything that is shared named by where it first occurs: two sessions are the same to PHP
// code if these are. A reference that nobody shares is none.
function dump(array &$root): string {
    $holders = []; $seen = [];
    $count = function (array &$a) use (&$count, &$holders, &$seen) {
        foreach (array_keys($a) as $k) {
            if ($r = ReflectionReference::fromArrayElement($a, $k)) {
                $id = $r->getId();
                $holders[$id] = ($holders[$id] ?? 0) + 1;
                if ($holders[$id] > 1) continue;
            }
            if (is_object($a[$k])) {
                $o = spl_object_id($a[$k]);
                if (isset($seen[$o])) continue;
                $seen[$o] = true;
                $p = (array) $a[$k];
                $count($p);
            } elseif (is_array($a[$k])) {
                $count($a[$k]);
            }
        }
    };
    $count($root);
    $refs = []; $objects = []; $n = 0;
    $show = function (array &$a) use (&$show, &$refs, &$objects, &$n, &$holders): string {
        $out = '[';
        foreach (array_keys($a) as $k) {
            $out .= json_encode(is_int($k) ? $k : bin2hex($k)) . '=';
            $n++;
            if (($r = ReflectionReference::fromArrayElement($a, $k)) && $holders[$r->getId()] > 1) {
                $id = $r->getId();
                if (isset($refs[$id])) { $out .= "&{$refs[$id]},"; continue; }
                $refs[$id] = $n;
                $out .= '&';
            }
            $v = $a[$k];
            if ($v instanceof UnitEnum) { $out .= serialize($v); }
            elseif (is_object($v)) {
                $o = spl_object_id($v);
                if (isset($objects[$o])) { $out .= "#{$objects[$o]},"; continue; }
                $objects[$o] = $n;
                $p = (array) $v;
                $out .= '#' . get_class($v) . $show($p);
            } elseif (is_array($v)) { $out .= $show($a[$k]); }
            else { $out .= is_float($v) ? var_export($v, true) : serialize($v); }
            $out .= ',';
        }
        return $out . ']';
    };
    return md5($show($root));
}

// Random sessions.
$pool = [];
function text(): string {
    return match (mt_rand(0, 8)) {
        0 => '', 1 => 'a|b', 2 => '";i:1;', 3 => "\xff\xfe\0", 4 => 'süß', 5 => (string) mt_rand(-9, 99),
        6 => str_repeat('x', mt_rand(0, 300)), default => substr('the quick brown fox', 0, mt_rand(0, 19)),
    };
}
function number(): float {
    return match (mt_rand(0, 9)) {
        0 => 0.1 * mt_rand(-100, 100), 1 => -0.0, 2 => INF, 3 => -INF, 4 => (float) mt_rand(), 5 => 1.0e17, 6 => 1e-5 * mt_rand(1, 9),
        default => (mt_rand() / mt_getrandmax() - 0.5) * 10.0 ** mt_rand(-320, 308),
    };
}
// Shares: 0 nothing, 1 values, 2 values, with classes among them that make references themselves.
function &value(int $depth, int $shares) {
    global $pool;
    if ($shares && $pool && mt_rand(0, 5) === 0) {
        $i = array_rand($pool);
        if (mt_rand(0, 1)) return $pool[$i];
        $v = $pool[$i];
        return $v;
    }
    switch (mt_rand(0, $depth > 0 ? 15 : 9)) {
        case 0: $v = null; break;
        case 1: $v = (bool) mt_rand(0, 1); break;
        case 2: case 3: $v = mt_rand(-100, 100); break;
        case 4: $v = mt_rand(0, 1) ? PHP_INT_MAX - mt_rand(0, 9) : PHP_INT_MIN + mt_rand(0, 9); break;
        case 5: $v = number(); break;
        case 6: case 7: case 8: $v = text(); break;
        case 9: $v = mt_rand(0, 1) ? Suit::Hearts : Suit::Spades; break;
        case 10: case 11: $v = []; for ($n = mt_rand(0, 5); $n > 0; $n--) $v[] = &value($depth - 1, $shares); break;
        case 12: case 13: $v = []; for ($n = mt_rand(0, 5); $n > 0; $n--) $v[mt_rand(0, 1) ? text() : mt_rand(-20, 20)] = &value($depth - 1, $shares); break;
        case 14:
            $v = mt_rand(0, 2) ? new stdClass : new P;
            for ($n = mt_rand(0, 3); $n > 0; $n--) $v->{'k' . mt_rand(0, 5)} = &value($depth - 1, $shares);
            if ($v instanceof P) $v->d = &value($depth - 1, $shares);
            break;
        case 15:
            if (mt_rand(0, 1)) { $d = &value($depth - 1, $shares); $v = new Kept(['d' => &$d, 7 => 'seven']); }
            elseif ($shares !== 1) { $v = new Ms; $v->d = &value($depth - 1, $shares); }
            else { $v = new OldStyle; $v->v = str_replace([':', ';'], '', text()); }
            break;
    }
    if ($shares && mt_rand(0, 3) === 0) $pool[] = &$v;
    return $v;
}
function key_for(string $handler): string|int {
    if ($handler === 'php_serialize' && mt_rand(0, 4) === 0) return mt_rand(-5, 5);
    $k = match (mt_rand(0, 6)) { 0 => '', 1 => 'é', 2 => "a\0b", 3 => '05', 4 => str_repeat('k', mt_rand(1, 127)), default => 'key' . mt_rand(0, 40) };
    return $k;
}
function generate(string $handler, int $keys, int $shares): array {
    global $pool;
    $pool = [];
    begin($handler);
    for ($n = 0; $n < $keys; $n++) $_SESSION[key_for($handler)] = &value(3, $shares);
    $bytes = session_encode();
    $before = serialize($_SESSION);
    $ok = decode($handler, (string) $bytes);
    return [(string) $bytes, $before, $ok ? serialize($_SESSION) : 'refused'];
}

$in = fopen('php://stdin', 'rb'); $out = fopen('php://stdout', 'wb');
while (($head = fread($in, 5)) !== false && strlen($head) === 5) {
    $length = unpack('V', $head, 1)[1];
    for ($body = ''; strlen($body) < $length; $body .= fread($in, $length - strlen($body)));
    $reply = [];
    switch ($head[0]) {
        case 'g': // generate: handler, seed, how many sessions, keys in each, whether they share
            [$handler, $seed, $sessions, $keys, $shares] = unpack_list($body);
            mt_srand((int) $seed);
            for ($n = 0; $n < $sessions; $n++) array_push($reply, ...generate($handler, (int) $keys, (int) $shares));
            break;
        case 'd': // decode: handler, sessions
            $list = unpack_list($body);
            $handler = array_shift($list);
            foreach ($list as $bytes) {
                $ok = decode($handler, $bytes);
                array_push($reply, $ok ? '1' : '0', $ok ? serialize($_SESSION) : '', $ok ? (string) session_encode() : '');
            }
            break;
        case 'e': // edit: handler, session, edits as op, key, value; then what we made of it
            $list = unpack_list($body);
            [$handler, $bytes, $ours] = $list;
            if (!decode($handler, $bytes)) { $reply = ['refused', '', '', '']; break; }
            for ($i = 3; $i < count($list); $i += 3) {
                [$op, $key, $value] = array_slice($list, $i, 3);
                if ($op === 's') $_SESSION[$key] = unserialize($value);
                elseif ($op === 'm') session_decode($value);
                else unset($_SESSION[$key]);
            }
            $theirs = (string) session_encode();
            $s = $_SESSION;
            $reply[] = dump($s);
            unset($s);
            if (!decode($handler, $ours)) { $reply = ['refused ours', '', '', '']; break; }
            $s = $_SESSION;
            $reply[] = dump($s);
            unset($s);
            array_push($reply, $theirs, serialize($_SESSION));
            foreach ($_SESSION as $key => $_) { $reply[] = (string) $key; $reply[] = serialize($_SESSION[$key]); }
            break;
        case 'u': // unserialize and serialize again, with a precision
            $list = unpack_list($body);
            ini_set('serialize_precision', array_shift($list));
            foreach ($list as $bytes) { $v = unserialize($bytes); $reply[] = $v === false && $bytes !== 'b:0;' ? '' : serialize($v); }
            ini_set('serialize_precision', '-1');
            break;
    }
    $reply = pack_list($reply);
    fwrite($out, pack('V', strlen($reply)) . $reply);
    fflush($out);
}
