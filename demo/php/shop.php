<?php
// What the shop knows: the menu, the cart, and how to answer.
declare(strict_types=1);

/** The menu that the Rust half reads too: name => price in cents. */
function menu(): array
{
    $menu = [];
    foreach (file(__DIR__ . '/menu.csv', FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES) as $line) {
        [$name, $price] = explode(',', $line);
        $menu[$name] = (int) $price;
    }
    return $menu;
}

/** A cart is a list of ['name' => 'Funghi', 'price' => 890, 'qty' => 2]. */
function with_one_more(array $cart, string $name, int $price): array
{
    foreach ($cart as $at => $item) {
        if ($item['name'] === $name) {
            $cart[$at]['qty'] = min($item['qty'] + 1, 99);
            return $cart;
        }
    }
    $cart[] = ['name' => $name, 'price' => $price, 'qty' => 1];
    return $cart;
}

function with_one_less(array $cart, string $name): array
{
    $left = [];
    foreach ($cart as $item) {
        if ($item['name'] === $name) {
            $item['qty']--;
        }
        if ($item['qty'] > 0) {
            $left[] = $item;
        }
    }
    return $left;
}

/** A field of the form that was sent; a list in its place counts as nothing. */
function form(string $field): string
{
    $value = $_POST[$field] ?? '';
    return is_string($value) ? $value : '';
}

/** The first characters of a text, without the extension mbstring, which may not be there. */
function shortened(string $text, int $most): string
{
    return preg_match('/^.{0,' . $most . '}/us', $text, $found) === 1 ? $found[0] : '';
}

/** Tells the demo's panel what this page did. */
function did(string $act): void
{
    header('X-Demo-Act: ' . $act);
}

/** A reload of the page that follows never sends the form again. */
function see_other(string $path): void
{
    header('Location: ' . $path, true, 303);
}

function refuse(string $why): void
{
    http_response_code(422);
    header('Content-Type: text/plain; charset=utf-8');
    echo $why, "\n";
}
