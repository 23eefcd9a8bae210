<?php
// Installs WordPress without a browser and creates its users. start_wordpress.sh runs it with the folder as its
// argument. Prints one line of JSON: the site's URL, secrets, the file with the URL for events, and id, email, password
// and application password by login name.

list( , $root ) = $argv;
require "$root/site.php";
$_SERVER['HTTP_HOST']       = parse_url( SITE_URL, PHP_URL_HOST ) . ':' . parse_url( SITE_URL, PHP_URL_PORT );
$_SERVER['SERVER_NAME']     = parse_url( SITE_URL, PHP_URL_HOST );
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
$_SERVER['REQUEST_METHOD']  = 'GET';
$_SERVER['REQUEST_URI']     = '/';
define( 'WP_INSTALLING', true );
require "$root/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

function fail_on_error( $value ) {
	if ( is_wp_error( $value ) ) {
		fwrite( STDERR, $value->get_error_message() . "\n" );
		exit( 1 );
	}
	return $value;
}

add_filter( 'pre_wp_mail', '__return_true' ); // WordPress would tell the administrator by mail.
const PASSWORD = 'Wordpress-pass-7';
wp_install( 'Example', 'admin', 'admin@example.org', false, '', PASSWORD );
update_option( 'permalink_structure', '/%postname%/' );
$wp_rewrite->init();
$wp_rewrite->flush_rules( false ); // Without it there is no /wp-json/.

// Login, display name and role. WordPress allows spaces and special characters in names, and users without a role.
$people = array(
	array( 'editor', 'Erika Editor 編輯', 'editor' ),
	array( 'subscriber', 'Sam Subscriber', 'subscriber' ),
	array( 'name with space', 'Nora Space', 'subscriber' ),
	array( 'dot.at@host', 'Dora Dot', '' ),
);
foreach ( $people as list( $login, $name, $role ) ) {
	fail_on_error(
		wp_insert_user(
			array(
				'user_login'   => $login,
				'user_pass'    => PASSWORD,
				'user_email'   => preg_replace( '/[^a-z]+/', '.', $login ) . '@example.org',
				'display_name' => $name,
				'role'         => $role,
			)
		)
	);
}

$seeded = array();
foreach ( get_users() as $user ) {
	list( $application_password ) = fail_on_error(
		WP_Application_Passwords::create_new_application_password( $user->ID, array( 'name' => 'roster' ) )
	);
	$seeded[ $user->user_login ]  = array(
		'id'                   => $user->ID,
		'email'                => $user->user_email,
		'password'             => PASSWORD,
		'application_password' => $application_password,
	);
}
echo json_encode(
	array(
		'url'           => SITE_URL,
		'ticket_secret' => ROSTER_TICKET_SECRET,
		'return_url'    => strtok( ROSTER_RETURN_URLS, ' ' ),
		'events_key'    => ROSTER_EVENTS_KEY,
		'events_url'    => "$root/events_url",
		'people'        => $seeded,
	)
) . "\n";
