<?php
// For `php -S`: everything goes to the shop. No file of this directory is ever served as it is.
declare(strict_types=1);

$key = (string) getenv('CLOAKROOM_DEMO_KEY');
if ($key === '' || !hash_equals($key, (string) ($_SERVER['HTTP_X_DEMO_KEY'] ?? ''))) {
    http_response_code(403);
    header('Content-Type: text/plain');
    echo "This page is reached through the demo, under /php/.\n";
    return true;
}
require __DIR__ . '/index.php';
return true;
