<?php
// Symfony's own PdoSessionHandler, driven as PHP's session module drives it. One command a process:
//   neighbour.php FILE LOCK_MODE count  ID TIMES MICROSECONDS   adds 1, TIMES times, holding each time
//   neighbour.php FILE LOCK_MODE read   ID                      prints what it reads
//   neighbour.php FILE LOCK_MODE write  ID TEXT                 reads, writes
//   neighbour.php FILE LOCK_MODE touch  ID                      reads, and writes the same later as lazy_write does
//   neighbour.php FILE LOCK_MODE hold   ID MICROSECONDS TEXT    reads, says "held", waits, writes TEXT (or destroys if it is "-")
//   neighbour.php FILE LOCK_MODE gc                             lets Symfony remove what has expired
//   neighbour.php FILE LOCK_MODE create                         makes the table
require '/usr/share/php/Symfony/Component/HttpFoundation/autoload.php';

use Symfony\Component\HttpFoundation\Session\Storage\Handler\PdoSessionHandler;

ini_set('session.gc_maxlifetime', '1440');
ini_set('session.use_cookies', '0');
[, $file, $mode, $command] = $argv;
$id = $argv[4] ?? '';
$handler = new PdoSessionHandler('sqlite:' . $file, ['lock_mode' => (int) $mode]);

function within(PdoSessionHandler $handler, string $id, callable $work): void
{
    $handler->open('', 'PHPSESSID');
    $text = $work($handler->read($id));
    if ($text === false) {
        $handler->destroy($id);
    } elseif ($text !== null) {
        $handler->write($id, $text);
    }
    $handler->close();
}

switch ($command) {
    case 'create':
        $handler->createTable();
        break;
    case 'count':
        for ($n = 0; $n < (int) $argv[5]; $n++) {
            within($handler, $id, function (string $data) use ($argv): string {
                usleep((int) $argv[6]);
                return (string) ((int) $data + 1);
            });
        }
        break;
    case 'read':
        within($handler, $id, function (string $data) {
            echo $data;
            return null;
        });
        break;
    case 'write':
        within($handler, $id, fn () => $argv[5]);
        break;
    case 'touch':
        within($handler, $id, function (string $data) use ($handler, $id) {
            $handler->updateTimestamp($id, $data);
            return null;
        });
        break;
    case 'hold':
        within($handler, $id, function () use ($argv) {
            echo "> held\n";
            flush();
            usleep((int) $argv[5]);
            return $argv[6] === '-' ? false : $argv[6];
        });
        break;
    case 'gc':
        within($handler, $id, function () use ($handler) {
            $handler->gc(1440);
            return null;
        });
        break;
}
