<?php
// The race table's small service in PHP, as examples/races.rs is ours: a router script for `php -S`. Each request is one
// session_start() to session_write_close(), as PHP does it. Settings come by `-d`; `races.pdo` ("DSN USER MODE") asks for
// Symfony's PdoSessionHandler.

error_reporting(E_ALL);
// A session that PHP could not lock or read answers an error: such a request promises nothing.
set_error_handler(function (int $level, string $text): never {
    throw new ErrorException($text);
});

if ($pdo = get_cfg_var('races.pdo')) {
    require '/usr/share/php/Symfony/Component/HttpFoundation/autoload.php';
    [$dsn, $user, $mode] = explode(' ', $pdo);
    $options = ['lock_mode' => (int) $mode, 'db_username' => $user, 'db_password' => ''];
    $class = 'Symfony\Component\HttpFoundation\Session\Storage\Handler\PdoSessionHandler';
    session_set_save_handler(new $class($dsn, $options), true);
}

function think(): void
{
    usleep(1000 * (int) ($_GET['d'] ?? 0));
}

function answer(string $path): array
{
    session_start();
    switch ($path) {
        case '/login':
            session_regenerate_id(true);
            $_SESSION['user'] = 'bob';
            return ['user' => 'bob'];
        case '/inc':
            $n = $_SESSION['n'] ?? 0;
            think();
            return ['n' => $_SESSION['n'] = $n + 1];
        case '/setk':
            think();
            $_SESSION['k' . $_GET['k']] = 1;
            return [];
        case '/slow':
            think();
            if (($_GET['w'] ?? '0') === '1') {
                $_SESSION['slow'] = 1;
            }
            return [];
        case '/logout':
            return ['destroyed' => session_destroy()];
        case '/get':
            return $_SESSION;
    }
    throw new Exception("there is no $path");
}

try {
    $answer = answer(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH));
    if (session_status() === PHP_SESSION_ACTIVE) {
        session_write_close();
    }
} catch (Throwable $error) {
    http_response_code(500);
    $answer = ['error' => $error->getMessage()];
}
header('Content-Type: application/json');
echo json_encode((object) $answer);
