<?php
// Times PHP's own functions. Started by the bench as `php -n`; a line asks for one measurement:
//   operation TAB session.serialize_handler (or unserialize) TAB file TAB how often
// and the answer is the nanoseconds that it took, or `! ` and what is wrong.
error_reporting(E_ALL);
ini_set('display_errors', 'stderr');
$files = [];
while (($line = fgets(STDIN)) !== false) {
    [$operation, $format, $file, $times] = explode("\t", rtrim($line, "\n"));
    $bytes = $files[$file] ??= file_get_contents($file);
    $times = (int) $times;
    $session = $format !== 'unserialize';
    if ($session && (session_status() !== PHP_SESSION_ACTIVE || ini_get('session.serialize_handler') !== $format)) {
        if (session_status() === PHP_SESSION_ACTIVE) session_abort();
        ini_set('session.serialize_handler', $format);
        session_start();
    }
    switch ($session ? $operation : "plain $operation") {
        case 'check':
            $_SESSION = [];
            $ok = session_decode($bytes) && session_encode() === $bytes;
            fwrite(STDOUT, $ok ? "0\n" : "! PHP writes $file in another way than it was written\n");
            continue 2;
        case 'get':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $_SESSION = []; session_decode($bytes); $n = $_SESSION['n']; }
            break;
        case 'decode':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $_SESSION = []; session_decode($bytes); }
            break;
        case 'splice':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) {
                $_SESSION = []; session_decode($bytes); $_SESSION['n'] = $i + 1000; $out = session_encode();
            }
            break;
        case 'encode':
            $_SESSION = []; session_decode($bytes);
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $out = session_encode(); }
            break;
        case 'plain get':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $n = unserialize($bytes)['n']; }
            break;
        case 'plain decode':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $value = unserialize($bytes); unset($value); }
            break;
        case 'plain splice':
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $value = unserialize($bytes); $value['n'] = $i + 1000; $out = serialize($value); }
            break;
        case 'plain encode':
            $value = unserialize($bytes);
            $begin = hrtime(true);
            for ($i = 0; $i < $times; $i++) { $out = serialize($value); }
            break;
        default:
            fwrite(STDOUT, "! $operation is not known\n");
            continue 2;
    }
    fwrite(STDOUT, (hrtime(true) - $begin) . "\n");
    $value = $out = null;
}
