<?php
// What the shop shows: the left half of the page. The frame around it and the panel beside it are the demo's.
declare(strict_types=1);

function h(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

function euros(int $cents): string
{
    return number_format($cents / 100, 2, '.', '') . ' €';
}

function page(array $session): void
{
    $user = $session['user'] ?? null;
    $pizza = $session['pizza'] ?? 0;
    $cart = $session['cart'] ?? [];
    $total = array_sum(array_map(fn (array $item): int => $item['price'] * $item['qty'], $cart));
    ?>
<section class="welcome" aria-labelledby="welcome">
  <h2 id="welcome"><?= $user === null ? 'Welcome, whoever you are' : 'Welcome, ' . h($user) ?></h2>
  <?php if ($user === null): ?>
  <form method="post" action="/php/login">
    <label for="name">Your name</label>
    <span class="field"><input id="name" name="name" required maxlength="40" autocomplete="off"><button>Log in</button></span>
    <p class="hint">Any name will do; there is no password.</p>
  </form>
  <?php else: ?>
  <form method="post" action="/php/logout"><button class="quiet">Log out</button></form>
  <?php endif ?>
</section>
<section class="counter" aria-labelledby="counter">
  <h2 id="counter">Pizza counter</h2>
  <form method="post" action="/php/pizza"><output id="pizza"><?= (int) $pizza ?></output><button>One more pizza</button></form>
</section>
<section aria-labelledby="menu">
  <h2 id="menu">Menu</h2>
  <ul class="menu">
    <?php foreach (menu() as $name => $price): ?>
    <li><span><?= h($name) ?></span><span class="price"><?= euros($price) ?></span>
      <form method="post" action="/php/cart/add"><input type="hidden" name="name" value="<?= h($name) ?>"><button class="small" aria-label="Add <?= h($name) ?>">Add</button></form></li>
    <?php endforeach ?>
  </ul>
</section>
<section aria-labelledby="cart">
  <h2 id="cart">Cart</h2>
  <?php if ($cart === []): ?>
  <p class="hint">Nothing in it yet.</p>
  <?php else: ?>
  <ul class="menu cart">
    <?php foreach ($cart as $item): ?>
    <li><span><b class="qty"><?= (int) $item['qty'] ?> ×</b> <?= h($item['name']) ?></span><span class="price"><?= euros($item['price'] * $item['qty']) ?></span>
      <form method="post" action="/php/cart/take"><input type="hidden" name="name" value="<?= h($item['name']) ?>"><button class="small quiet" aria-label="Take one <?= h($item['name']) ?> out">Take out</button></form></li>
    <?php endforeach ?>
  </ul>
  <p class="total"><span>Total</span><span class="price"><?= euros($total) ?></span></p>
  <?php endif ?>
</section>
    <?php
}

function bye(): void
{
    ?>
<section class="welcome" aria-labelledby="welcome">
  <h2 id="welcome">Goodbye</h2>
  <p>Your session is gone, and your browser has no mark any more.</p>
  <p><a class="button" href="/php/">Come in again</a></p>
</section>
    <?php
}
