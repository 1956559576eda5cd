<?php
// The shop in PHP, with PHP's own session functions and nothing else. The settings (strict mode, HttpOnly,
// SameSite=Lax, …) come from the demo as `-d`, so that both sides obey the same ones; the directory comes this way,
// because a path may hold what php.ini's syntax cannot.
declare(strict_types=1);

require __DIR__ . '/shop.php';
require __DIR__ . '/page.php';

// Depth and mode in front, so that a `;` further on belongs to the path.
ini_set('session.save_path', '0;0600;' . getenv('CLOAKROOM_DEMO_SESSIONS'));
header('Content-Type: text/html; charset=utf-8');

$path = (string) parse_url((string) $_SERVER['REQUEST_URI'], PHP_URL_PATH);
switch ($_SERVER['REQUEST_METHOD'] . ' ' . $path) {
    case 'HEAD /php/':
    case 'GET /php/':
        session_start();
        if ($_SESSION !== []) {
            did('look');
        } else {
            did(isset($_COOKIE[session_name()]) ? 'stranger' : 'first');
            $_SESSION['pizza'] = 0;
            $_SESSION['cart'] = [];
        }
        page($_SESSION);
        break;

    case 'POST /php/pizza':
        session_start();
        $_SESSION['pizza'] = ($_SESSION['pizza'] ?? 0) + 1;
        did('pizza');
        see_other('/php/');
        break;

    case 'POST /php/cart/add':
        $name = form('name');
        if (!isset(menu()[$name])) {
            refuse('this is not on the menu');
            break;
        }
        session_start();
        $_SESSION['cart'] = with_one_more($_SESSION['cart'] ?? [], $name, menu()[$name]);
        did('add');
        see_other('/php/');
        break;

    case 'POST /php/cart/take':
        session_start();
        $_SESSION['cart'] = with_one_less($_SESSION['cart'] ?? [], form('name'));
        did('take');
        see_other('/php/');
        break;

    case 'POST /php/login':
        $name = shortened(trim(form('name')), 40);
        if ($name === '') {
            refuse('a name, please');
            break;
        }
        session_start();
        session_regenerate_id(true);
        $_SESSION['user'] = $name;
        did('login');
        see_other('/php/');
        break;

    case 'POST /php/logout':
        session_start();
        session_destroy();
        $cookie = session_get_cookie_params();
        unset($cookie['lifetime']);
        setcookie(session_name(), '', ['expires' => 1] + $cookie);
        did('logout');
        see_other('/php/bye');
        break;

    case 'HEAD /php/bye':
    case 'GET /php/bye':
        did('bye');
        bye();
        break;

    default:
        http_response_code(404);
        header('Content-Type: text/plain');
        echo "There is no such page.\n";
}
