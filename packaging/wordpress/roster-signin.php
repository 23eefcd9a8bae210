<?php
/**
 * Plugin Name: Roster sign-in
 * Description: Signs short-lived tickets with which users of this site sign in to Roster.
 * Version: 1.0.0
 * Requires PHP: 7.4
 * License: MIT OR Apache-2.0
 *
 * To install: copy this file into wp-content/mu-plugins/ (create the folder if there is none) and add to wp-config.php,
 * above "That's all, stop editing":
 *
 *     define( 'ROSTER_TICKET_SECRET', '...' );  // 32 characters or more, the same as in Roster: openssl rand -hex 32
 *     define( 'ROSTER_RETURN_URLS', array( 'https://portal.example.org/signed-in' ) );  // or one string, with spaces
 *
 * The return URLs are pages of your own portal, compared character by character. They send the ticket to Roster with
 * POST /auth/wordpress/ticket. Roster's `wordpress.url` must be exactly the Site Address of Settings > General, but
 * without a slash at the end.
 *
 * A script of a page gets a ticket with POST /wp-json/roster/v1/ticket, authenticated by the cookie and an X-WP-Nonce
 * or in any other way that WordPress accepts. The answer is {"ticket": "...", "expires_in": 60}.
 *
 * A browser gets a ticket with a link to /wp-admin/admin-post.php?action=roster_sign_in&return_to=URL. A user who is
 * not signed in signs in first; then the browser is redirected to URL#ticket=... A `state` in the link, 1 to 128
 * characters of A-Z a-z 0-9 - _, is returned beside the ticket, so that the page can check that it started this
 * sign-in itself.
 *
 * A ticket is BODY.SIGNATURE. BODY is base64url, without padding, of
 * {"v":1,"site","id","login","email","name","roles","iat","exp","jti"}. SIGNATURE is HMAC-SHA256 of BODY in
 * hexadecimal. Roster accepts each `jti` once.
 *
 * @package Roster
 */

defined( 'ABSPATH' ) || exit;

const ROSTER_TICKET_SECONDS        = 60;
const ROSTER_TICKET_SECRET_MINIMUM = 32;

add_action( 'rest_api_init', 'roster_signin_routes' );
add_action( 'admin_post_roster_sign_in', 'roster_signin_return' );
add_action( 'admin_post_nopriv_roster_sign_in', 'roster_signin_first' );

/** Registers the REST route with which scripts get a ticket. */
function roster_signin_routes() {
	register_rest_route(
		'roster/v1',
		'/ticket',
		array(
			'methods'             => 'POST',
			'callback'            => 'roster_signin_answer',
			'permission_callback' => 'roster_signin_require_person',
		)
	);
}

/**
 * Allows every signed-in user to get a ticket, because it contains only the user's own identity.
 *
 * @return true|WP_Error
 */
function roster_signin_require_person() {
	if ( 0 < get_current_user_id() ) {
		return true;
	}
	return new WP_Error( 'roster_not_signed_in', 'Sign in first.', array( 'status' => 401 ) );
}

/**
 * Returns a ticket to a script.
 *
 * @return WP_REST_Response|WP_Error
 */
function roster_signin_answer() {
	$ticket = roster_signin_ticket( wp_get_current_user() );
	if ( is_wp_error( $ticket ) ) {
		return $ticket;
	}
	// WordPress itself sends no-cache headers with answers to signed-in users.
	return rest_ensure_response(
		array(
			'ticket'     => $ticket,
			'expires_in' => ROSTER_TICKET_SECONDS,
		)
	);
}

/** Redirects a browser back with a ticket in the fragment, which is not sent to servers, so that no log contains it. */
function roster_signin_return() {
	list( $url, $state ) = roster_signin_request();

	$ticket = roster_signin_ticket( wp_get_current_user() );
	if ( is_wp_error( $ticket ) ) {
		roster_signin_stop( $ticket->get_error_message(), $ticket->get_error_data()['status'] );
	}
	$joint = '#';
	if ( false !== strpos( $url, '#' ) ) {
		$joint = '#' === substr( $url, -1 ) ? '' : '&';
	}
	header( 'Cache-Control: no-store' );
	header( 'Referrer-Policy: no-referrer' );
	// Not wp_safe_redirect(): the list of return URLs is stricter than its list of hosts, and contains other hosts.
	wp_redirect( $url . $joint . 'ticket=' . $ticket . ( '' === $state ? '' : '&state=' . $state ), 303 );
	exit;
}

/** Redirects a browser to the sign-in page, which returns it to this link. */
function roster_signin_first() {
	list( $url, $state ) = roster_signin_request();

	$here = add_query_arg(
		array(
			'action'    => 'roster_sign_in',
			'return_to' => rawurlencode( $url ),
			'state'     => $state,
		),
		admin_url( 'admin-post.php' )
	);
	header( 'Cache-Control: no-store' );
	wp_safe_redirect( wp_login_url( $here ) );
	exit;
}

/**
 * Returns the parameters of a sign-in link, or ends the request if they are invalid.
 *
 * No nonce is checked: the link is followed from another site, and redirects only to URLs that the site owner listed.
 *
 * @return string[] The return URL, which is in the list, and the state, which can be empty.
 */
function roster_signin_request() {
	// phpcs:disable WordPress.Security.NonceVerification, WordPress.Security.ValidatedSanitizedInput
	$url   = isset( $_GET['return_to'] ) ? wp_unslash( $_GET['return_to'] ) : '';
	$state = isset( $_GET['state'] ) ? wp_unslash( $_GET['state'] ) : '';
	// phpcs:enable

	$allowed = defined( 'ROSTER_RETURN_URLS' ) ? ROSTER_RETURN_URLS : array();
	if ( ! is_array( $allowed ) ) {
		$allowed = preg_split( '/\s+/', (string) $allowed, -1, PREG_SPLIT_NO_EMPTY );
	}
	if ( ! is_string( $url ) || ! in_array( $url, $allowed, true ) ) {
		roster_signin_stop( 'return_to is not one of the URLs in ROSTER_RETURN_URLS of wp-config.php.', 400 );
	}
	if ( ! is_string( $state ) || ! preg_match( '/\A[A-Za-z0-9_-]{0,128}\z/', $state ) ) {
		roster_signin_stop( 'state must have at most 128 characters, all of A-Z a-z 0-9 - _.', 400 );
	}
	return array( $url, $state );
}

/**
 * Ends the request with a page that shows the error.
 *
 * @param string $message The error.
 * @param int    $status  The HTTP status.
 */
function roster_signin_stop( $message, $status ) {
	wp_die( esc_html( $message ), 'Roster sign-in', array( 'response' => (int) $status ) );
}

/**
 * Returns a signed ticket with the identity of a user.
 *
 * @param WP_User $person The signed-in user.
 * @return string|WP_Error
 */
function roster_signin_ticket( $person ) {
	if ( 0 >= (int) $person->ID ) {
		return new WP_Error( 'roster_not_signed_in', 'Sign in first.', array( 'status' => 401 ) );
	}
	$secret = defined( 'ROSTER_TICKET_SECRET' ) ? ROSTER_TICKET_SECRET : '';
	if ( ! is_string( $secret ) || strlen( $secret ) < ROSTER_TICKET_SECRET_MINIMUM ) {
		return new WP_Error(
			'roster_not_set_up',
			'Define ROSTER_TICKET_SECRET, with 32 characters or more, in wp-config.php.',
			array( 'status' => 501 )
		);
	}
	$now     = time();
	$payload = array(
		'v'     => 1,
		// The option, because home_url() can differ by scheme and, with some plugins, by language.
		'site'  => untrailingslashit( get_option( 'home' ) ),
		'id'    => (int) $person->ID,
		'login' => $person->user_login,
		'email' => $person->user_email,
		'name'  => $person->display_name,
		'roles' => array_values( $person->roles ),
		'iat'   => $now,
		'exp'   => $now + ROSTER_TICKET_SECONDS,
		'jti'   => bin2hex( random_bytes( 16 ) ),
	);
	$json    = wp_json_encode( $payload, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE );
	if ( false === $json ) {
		return new WP_Error( 'roster_not_text', 'This account cannot be encoded as JSON.', array( 'status' => 500 ) );
	}
	$body = rtrim( strtr( base64_encode( $json ), '+/', '-_' ), '=' );
	return $body . '.' . hash_hmac( 'sha256', $body, $secret );
}
