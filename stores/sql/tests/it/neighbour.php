<?php
// Symfony's own PdoSessionHandler, driven as PHP's session module drives it. One command a process:
//   neighbour.php DSN USER LOCK_MODE count  ID TIMES MICROSECONDS   adds 1, TIMES times, holding each time
//   neighbour.php DSN USER LOCK_MODE read   ID                      prints what it reads
//   neighbour.php DSN USER LOCK_MODE write  ID TEXT                 reads, writes
//   neighbour.php DSN USER LOCK_MODE hold   ID MICROSECONDS TEXT    reads, says "held", waits, writes TEXT (or destroys if it is "-")
//   neighbour.php DSN USER LOCK_MODE create                         makes the table
require '/usr/share/php/Symfony/Component/HttpFoundation/autoload.php';

use Symfony\Component\HttpFoundation\Session\Storage\Handler\PdoSessionHandler;

ini_set('session.gc_maxlifetime', '1440');
ini_set('session.use_cookies', '0');
ini_set('session.use_strict_mode', getenv('STRICT') ?: '0');
[, $dsn, $user, $mode, $command] = $argv;
$id = $argv[5] ?? '';
$options = ['lock_mode' => (int) $mode, 'db_username' => $user, 'db_password' => ''];
$handler = new PdoSessionHandler($dsn, $options);

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
        for ($n = 0; $n < (int) $argv[6]; $n++) {
            within($handler, $id, function (string $data) use ($argv): string {
                usleep((int) $argv[7]);
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
        within($handler, $id, fn () => $argv[6]);
        break;
    case 'hold':
        within($handler, $id, function () use ($argv) {
            echo "held\n";
            flush();
            usleep((int) $argv[6]);
            return $argv[7] === '-' ? false : $argv[7];
        });
        break;
}
