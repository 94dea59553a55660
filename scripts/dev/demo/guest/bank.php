<?php
// SPDX-License-Identifier: GPL-2.0-or-later
//
// A bank's web site: each page is computed from the database, a session is
// kept in a file, transfers are written. There is no password to know.

const PAGE_ROWS = 100;

function query(string $text, array $values = []): array
{
    static $database = null;
    if (!$database) {
        $database = pg_pconnect('dbname=bank user=postgres');
    }
    $result = pg_query_params($database, $text, $values);
    if (!$result) {
        http_response_code(500);
        exit('the database refuses');
    }
    return pg_fetch_all($result);
}

function table(array $rows): string
{
    $text = '<table>';
    foreach ($rows as $row) {
        $text .= '<tr>';
        foreach ($row as $name => $value) {
            $text .= '<td class="' . $name . '">'
                . htmlspecialchars((string)$value) . '</td>';
        }
        $text .= "</tr>\n";
    }
    return $text . '</table>';
}

function transfers(int $owner, int $count): string
{
    $rows = query('select t.id, t.source, t.target, t.amount, t.remark, t.at
        from transfers t join accounts a on a.id in (t.source, t.target)
        where a.owner = $1 order by t.at desc, t.id desc limit ' . $count,
        [$owner]);
    $total = 0;
    foreach ($rows as &$row) {
        $total += (int)$row['amount'];
        $row['sum'] = number_format($total / 100, 2);
    }
    return table($rows);
}

function transfer(): string
{
    query('begin');
    query('select 1 from accounts where id in ($1, $2) order by id for update',
          [$_POST['source'], $_POST['target']]);
    query('update accounts set balance = balance - $1 where id = $2',
          [$_POST['amount'], $_POST['source']]);
    query('update accounts set balance = balance + $1 where id = $2',
          [$_POST['amount'], $_POST['target']]);
    query('insert into transfers (id, source, target, amount, remark)
        values ($1, $2, $3, $4, $5)',
        [$_POST['id'], $_POST['source'], $_POST['target'], $_POST['amount'],
         $_POST['remark']]);
    query('commit');
    return 'transferred ' . htmlspecialchars($_POST['id']);
}

function login(): string
{
    $_SESSION['user'] = (int)$_POST['user'];
    query('update customers set seen = now() where id = $1',
          [$_SESSION['user']]);
    return 'welcome';
}

function page(string $name): string
{
    if ($name !== 'login' && !isset($_SESSION['user'])) {
        http_response_code(403);
        return 'no session';
    }
    $_SESSION['pages'] = ($_SESSION['pages'] ?? 0) + 1;
    $user = $_SESSION['user'] ?? 0;
    switch ($name) {
        case 'login':
            return login();
        case 'summary':
            return table(query('select c.name, a.id, a.balance
                from accounts a join customers c on c.id = a.owner
                where a.owner = $1', [$user])) . transfers($user, 10);
        case 'statement':
            return transfers($user, PAGE_ROWS);
        case 'transfer':
            return transfer();
        case 'logout':
            session_destroy();
            return 'goodbye';
        default:
            return 'unknown page';
    }
}

session_start();
$body = page($_GET['page'] ?? '');
header('Content-Type: text/html; charset=utf-8');
echo "<!DOCTYPE html>\n<title>Bank</title>\n<main>", $body, '</main>', "\n";
