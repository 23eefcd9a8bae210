<?php
/**
 * Plugin Name: Roster events
 * Description: Tells Roster which users of this site were made, changed or deleted, so that it can look.
 * Version: 1.1.0
 * Requires PHP: 7.4
 * License: MIT OR Apache-2.0
 *
 * To install: copy this file into wp-content/mu-plugins/ (make the folder if there is none) and add to wp-config.php,
 * above "That's all, stop editing":
 *
 *     define( 'ROSTER_EVENTS_URL', 'https://roster.example.org/api/v1/hooks/wordpress' );
 *     define( 'ROSTER_EVENTS_KEY', '...' );  // 32 characters or more, the same as in Roster: openssl rand -hex 32
 *
 * It needs nothing of roster-signin.php, which may lie beside it, and nothing of it is needed there. Both call this
 * site by the Site Address of Settings > General, without a slash at the end: Roster's `wordpress.url`, to the letter.
 *
 * What is sent is a hint: numbers of users, and who they are now. Roster asks this site about them where it can, and
 * compares all users by `roster sync wordpress`, so that a hint which is lost delays, and does no more.
 *
 * The numbers of one request are collected and sent once, when it is over and without waiting for an answer. They stay
 * in a queue until Roster has taken them: WP-Cron sends them again, after a minute and then ever more rarely for about
 * a day. With DISABLE_WP_CRON the machine's own cron has to call wp-cron.php.
 *
 * A request is POST with the JSON body {"site","delivery","users":[{"id","event","username","email","name","roles"}]},
 * signed as Roster signs its webhooks: X-Roster-Signature is v1= and the hex of HMAC-SHA256 over X-Roster-Timestamp, a
 * point, and the body. `delivery` is new in each, so that two which say the same are two. `event` is register, update,
 * role or delete; of a deleted user only the number is sent.
 *
 * Roster tells this site who is suspended there, by the user's meta `roster_suspended`: then no password of the user is
 * taken here, and what is signed in ends. Who is active again finds the account as it was.
 *
 * A program that makes a user by the REST API and tells Roster of it by itself sends the header X-Roster-Quiet: 1.
 *
 * @package Roster
 */

defined( 'ABSPATH' ) || exit;

const ROSTER_EVENTS_KEY_MINIMUM   = 32;
const ROSTER_EVENTS_OPTION        = 'roster_events_queue';
const ROSTER_EVENTS_CRON          = 'roster_events_send';
const ROSTER_EVENTS_USERS_AT_ONCE = 100;
const ROSTER_EVENTS_USERS_MAXIMUM = 1000;
const ROSTER_EVENTS_TRIES         = 30;
const ROSTER_EVENTS_WAIT          = 60;
const ROSTER_EVENTS_WAIT_MAXIMUM  = 3600;
const ROSTER_EVENTS_SUSPENDED     = 'roster_suspended';

add_action( 'user_register', 'roster_events_registered', 99 );
add_action( 'profile_update', 'roster_events_updated', 99 );
add_action( 'set_user_role', 'roster_events_role', 99 );
add_action( 'add_user_role', 'roster_events_role', 99 );
add_action( 'remove_user_role', 'roster_events_role', 99 );
add_action( 'deleted_user', 'roster_events_deleted', 99 );
// Several sites: who joins or leaves one is made or deleted there.
add_action( 'add_user_to_blog', 'roster_events_updated', 99 );
add_action( 'remove_user_from_blog', 'roster_events_updated', 99 );
add_action( 'wpmu_delete_user', 'roster_events_deleted', 99 );
add_action( 'shutdown', 'roster_events_shutdown', 99 );
add_action( ROSTER_EVENTS_CRON, 'roster_events_send_queue' );

add_action( 'init', 'roster_events_register_meta' );
add_action( 'added_user_meta', 'roster_events_meta_set', 99, 4 );
add_action( 'updated_user_meta', 'roster_events_meta_set', 99, 4 );
add_filter( 'wp_authenticate_user', 'roster_events_authenticate', 99 );
add_filter( 'wp_is_application_passwords_available_for_user', 'roster_events_application_passwords', 99, 2 );

/**
 * Who may edit users says by the REST API who is suspended; nobody does so for oneself without that right.
 */
function roster_events_register_meta() {
	register_meta(
		'user',
		ROSTER_EVENTS_SUSPENDED,
		array(
			'type'          => 'boolean',
			'single'        => true,
			'default'       => false,
			'show_in_rest'  => array(
				'schema' => array(
					'type'    => 'boolean',
					'context' => array( 'edit' ),
				),
			),
			'auth_callback' => 'roster_events_may_suspend',
		)
	);
}

/**
 * May the one who asks suspend users?
 *
 * @return bool
 */
function roster_events_may_suspend() {
	return current_user_can( 'edit_users' );
}

/**
 * Ends what a user is signed in to, once the user is suspended.
 *
 * @param int    $meta_id Not looked at.
 * @param int    $id      The user.
 * @param string $key     What was set.
 * @param mixed  $value   To what.
 */
function roster_events_meta_set( $meta_id, $id, $key, $value ) {
	if ( ROSTER_EVENTS_SUSPENDED === $key && $value ) {
		WP_Session_Tokens::get_instance( (int) $id )->destroy_all();
	}
}

/**
 * Lets no suspended user in by password.
 *
 * @param WP_User|WP_Error $user Who signs in.
 * @return WP_User|WP_Error
 */
function roster_events_authenticate( $user ) {
	if ( $user instanceof WP_User && get_user_meta( $user->ID, ROSTER_EVENTS_SUSPENDED, true ) ) {
		return new WP_Error( 'roster_suspended', __( 'This account is suspended.' ) );
	}
	return $user;
}

/**
 * Nor by an application password.
 *
 * @param bool    $is_available Whether the user has them.
 * @param WP_User $user         The user.
 * @return bool
 */
function roster_events_application_passwords( $is_available, $user ) {
	return $is_available && ! get_user_meta( $user->ID, ROSTER_EVENTS_SUSPENDED, true );
}

/**
 * A user was made.
 *
 * @param int $id The user.
 */
function roster_events_registered( $id ) {
	// Only who may make users gets here. The header holds for what this one request made.
	$is_rest = defined( 'REST_REQUEST' ) && REST_REQUEST;
	if ( $is_rest && isset( $_SERVER['HTTP_X_ROSTER_QUIET'] ) && '1' === $_SERVER['HTTP_X_ROSTER_QUIET'] ) {
		roster_events_touched( $id, 'quiet' );
		return;
	}
	roster_events_touched( $id, 'register' );
}

/**
 * Something of a user changed.
 *
 * @param int $id The user.
 */
function roster_events_updated( $id ) {
	roster_events_touched( $id, 'update' );
}

/**
 * The roles of a user change. The hook may come in the middle of it, so that what it says is not looked at.
 *
 * @param int $id The user.
 */
function roster_events_role( $id ) {
	roster_events_touched( $id, 'role' );
}

/**
 * A user was deleted.
 *
 * @param int $id The user.
 */
function roster_events_deleted( $id ) {
	roster_events_touched( $id, 'delete' );
}

/**
 * Collects the users of this request.
 *
 * @param int|null $id    The user; null only answers.
 * @param string   $event What happened.
 * @return string[] The weightiest event of each user.
 */
function roster_events_touched( $id = null, $event = '' ) {
	static $touched = array();
	static $weights = array(
		'update'   => 1,
		'role'     => 2,
		'register' => 3,
		'quiet'    => 4,
		'delete'   => 5,
	);

	$id = (int) $id;
	if ( 0 < $id && ( ! isset( $touched[ $id ] ) || $weights[ $touched[ $id ] ] < $weights[ $event ] ) ) {
		$touched[ $id ] = $event;
	}
	return $touched;
}

/** The end of a request: what it did is put into the queue, and a first hint goes out. */
function roster_events_shutdown() {
	$loud = function ( $event ) {
		return 'quiet' !== $event;
	};

	$touched = array_filter( roster_events_touched(), $loud );
	if ( array() === $touched || ! roster_events_is_set_up() ) {
		return;
	}
	roster_events_keep( $touched );
	if ( ! wp_next_scheduled( ROSTER_EVENTS_CRON ) ) {
		wp_schedule_single_event( time() + roster_events_wait( 0 ), ROSTER_EVENTS_CRON );
	}
	if ( function_exists( 'fastcgi_finish_request' ) ) {
		// The visitor has the page: nobody waits, so that the answer can be heard.
		fastcgi_finish_request();
		roster_events_send_queue();
		return;
	}
	roster_events_send( array_slice( $touched, 0, ROSTER_EVENTS_USERS_AT_ONCE, true ), false );
}

/**
 * Adds to the queue. Two requests at the same moment may lose one of two entries: Roster's comparison finds it.
 *
 * @param string[] $touched Events by user.
 */
function roster_events_keep( $touched ) {
	$queue = roster_events_queue();
	// The newest stay: whoever falls out is found by the comparison.
	$users          = array_slice( $touched + $queue['users'], 0, ROSTER_EVENTS_USERS_MAXIMUM, true );
	$queue['users'] = $users;
	update_option( ROSTER_EVENTS_OPTION, $queue, false );
}

/**
 * What waits to be taken by Roster: events by user, and how often that failed.
 *
 * @return array
 */
function roster_events_queue() {
	// Another request may have changed it since this one began.
	wp_cache_delete( ROSTER_EVENTS_OPTION, 'options' );
	$queue = get_option( ROSTER_EVENTS_OPTION );
	if ( ! is_array( $queue ) || ! isset( $queue['users'], $queue['tries'] ) || ! is_array( $queue['users'] ) ) {
		$queue = array(
			'users' => array(),
			'tries' => 0,
		);
	}
	return $queue;
}

/** Sends what waits, and hears whether it was taken. */
function roster_events_send_queue() {
	$queue = roster_events_queue();
	if ( array() === $queue['users'] || ! roster_events_is_set_up() ) {
		return;
	}
	$sent     = array_slice( $queue['users'], 0, ROSTER_EVENTS_USERS_AT_ONCE, true );
	$is_taken = roster_events_send( $sent, true );

	// Others may have put something into the queue meanwhile; what happened again to somebody is sent again.
	$queue = roster_events_queue();
	$tries = $is_taken ? 0 : (int) $queue['tries'] + 1;
	if ( $is_taken || ROSTER_EVENTS_TRIES <= $tries ) {
		$queue['users'] = array_diff_assoc( $queue['users'], $sent );
	}
	if ( ! $is_taken && ROSTER_EVENTS_TRIES <= $tries ) {
		// phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_error_log
		error_log( 'Roster events: given up for ' . count( $sent ) . ' users; run `roster sync wordpress`.' );
		$tries = 0;
	}
	if ( array() === $queue['users'] ) {
		delete_option( ROSTER_EVENTS_OPTION );
		wp_clear_scheduled_hook( ROSTER_EVENTS_CRON );
		return;
	}
	$queue['tries'] = $tries;
	update_option( ROSTER_EVENTS_OPTION, $queue, false );
	wp_clear_scheduled_hook( ROSTER_EVENTS_CRON );
	wp_schedule_single_event( time() + ( $is_taken ? 0 : roster_events_wait( $tries ) ), ROSTER_EVENTS_CRON );
}

/**
 * Sends one hint.
 *
 * @param string[] $touched  Events by user.
 * @param bool     $is_heard Is the answer waited for?
 * @return bool Was it taken? Nobody knows when it is not waited for.
 */
function roster_events_send( $touched, $is_heard ) {
	$users = array();
	foreach ( $touched as $id => $event ) {
		$users[] = roster_events_user( (int) $id, $event );
	}
	$body = wp_json_encode(
		array(
			// The option, not home_url(): that one differs by scheme and, with some plugins, by language.
			'site'     => untrailingslashit( get_option( 'home' ) ),
			// Two hints of one second may say the same and yet be two.
			'delivery' => wp_generate_uuid4(),
			'users'    => $users,
		),
		JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE
	);
	if ( false === $body ) {
		return false;
	}
	$now    = (string) time();
	$answer = wp_remote_post(
		ROSTER_EVENTS_URL,
		array(
			'blocking'    => $is_heard,
			'timeout'     => $is_heard ? 15 : 1,
			'redirection' => 0,
			'body'        => $body,
			'headers'     => array(
				'Content-Type'       => 'application/json',
				'X-Roster-Event'     => 'wordpress.users',
				'X-Roster-Timestamp' => $now,
				'X-Roster-Signature' => 'v1=' . hash_hmac( 'sha256', $now . '.' . $body, ROSTER_EVENTS_KEY ),
			),
		)
	);
	if ( is_wp_error( $answer ) || ! $is_heard ) {
		return false;
	}
	$status = (int) wp_remote_retrieve_response_code( $answer );
	return 200 <= $status && $status < 300;
}

/**
 * Who a user is now, whatever happened before.
 *
 * @param int    $id    The user.
 * @param string $event What happened.
 * @return array
 */
function roster_events_user( $id, $event ) {
	clean_user_cache( $id );
	$user = get_userdata( $id );
	if ( false === $user || ( is_multisite() && ! is_user_member_of_blog( $id ) ) ) {
		return array(
			'id'    => $id,
			'event' => 'delete',
		);
	}
	return array(
		'id'       => $id,
		'event'    => 'delete' === $event ? 'update' : $event,
		'username' => $user->user_login,
		'email'    => $user->user_email,
		'name'     => $user->display_name,
		'roles'    => array_values( $user->roles ),
	);
}

/**
 * Seconds until the next try.
 *
 * @param int $tries Tries that failed.
 * @return int
 */
function roster_events_wait( $tries ) {
	// Tests do not wait for a minute.
	$first = defined( 'ROSTER_EVENTS_RETRY_SECONDS' ) ? (int) ROSTER_EVENTS_RETRY_SECONDS : ROSTER_EVENTS_WAIT;
	return (int) min( ROSTER_EVENTS_WAIT_MAXIMUM, $first * pow( 2, min( $tries, 10 ) ) );
}

/**
 * Are both constants there, and the key long enough?
 *
 * @return bool
 */
function roster_events_is_set_up() {
	return defined( 'ROSTER_EVENTS_URL' ) && is_string( ROSTER_EVENTS_URL ) && '' !== ROSTER_EVENTS_URL
		&& defined( 'ROSTER_EVENTS_KEY' ) && is_string( ROSTER_EVENTS_KEY )
		&& strlen( ROSTER_EVENTS_KEY ) >= ROSTER_EVENTS_KEY_MINIMUM;
}
