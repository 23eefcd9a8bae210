<?php
/**
 * Plugin Name: Roster events
 * Description: Tells Roster which users of this site were created, changed or deleted.
 * Version: 1.1.0
 * Requires PHP: 7.4
 * License: MIT OR Apache-2.0
 *
 * To install: copy this file into wp-content/mu-plugins/ (create the folder if there is none) and add to wp-config.php,
 * above "That's all, stop editing":
 *
 *     define( 'ROSTER_EVENTS_URL', 'https://roster.example.org/api/v1/hooks/wordpress' );
 *     define( 'ROSTER_EVENTS_KEY', '...' );  // 32 characters or more, the same as in Roster: openssl rand -hex 32
 *
 * This plugin and roster-signin.php do not depend on each other and can be installed together. Both identify this site
 * by the Site Address of Settings > General, without a slash at the end. It must be exactly Roster's `wordpress.url`.
 *
 * A message contains the ids of users and their current data. Roster reads these users from this site if it can, and
 * `roster sync wordpress` compares all users, so a lost message only causes a delay.
 *
 * The users that one request changes are collected and sent in one message at its end, without waiting for the answer.
 * They stay in a queue until Roster has accepted them: WP-Cron sends them again, after a minute and then less and less
 * often, for about a day. With DISABLE_WP_CRON the machine's own cron must call wp-cron.php.
 *
 * A message is a POST with the JSON body
 * {"site","delivery","users":[{"id","event","username","email","name","roles"}]}, signed like Roster's webhooks:
 * X-Roster-Signature is v1= and, in hexadecimal, the HMAC-SHA256 of X-Roster-Timestamp, a full stop and the body.
 * `delivery` is new in each message, so that two messages with the same content are distinct. `event` is register,
 * update, role or delete. For a deleted user only the id is sent.
 *
 * Roster marks the users of suspended members with the user meta `roster_suspended`. This site then refuses passwords
 * of such a user and ends the user's sessions. Nothing else of the account changes.
 *
 * A program that creates a user with the REST API and also tells Roster about it sends the header X-Roster-Quiet: 1.
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
// Multisite: a user who joins or leaves a site counts as created or deleted there.
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
 * Registers the mark of suspended users. Only callers who can edit users can set it with the REST API, also for
 * themselves.
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
 * Whether the caller can suspend users.
 *
 * @return bool
 */
function roster_events_may_suspend() {
	return current_user_can( 'edit_users' );
}

/**
 * Ends the sessions of a user who is suspended.
 *
 * @param int    $meta_id Not used.
 * @param int    $id      The user.
 * @param string $key     The name of the meta value that was set.
 * @param mixed  $value   The new value.
 */
function roster_events_meta_set( $meta_id, $id, $key, $value ) {
	if ( ROSTER_EVENTS_SUSPENDED === $key && $value ) {
		WP_Session_Tokens::get_instance( (int) $id )->destroy_all();
	}
}

/**
 * Refuses the password of a suspended user.
 *
 * @param WP_User|WP_Error $user The user who signs in.
 * @return WP_User|WP_Error
 */
function roster_events_authenticate( $user ) {
	if ( $user instanceof WP_User && get_user_meta( $user->ID, ROSTER_EVENTS_SUSPENDED, true ) ) {
		return new WP_Error( 'roster_suspended', __( 'This account is suspended.' ) );
	}
	return $user;
}

/**
 * Refuses the application passwords of a suspended user.
 *
 * @param bool    $is_available Whether the user can have them otherwise.
 * @param WP_User $user         The user.
 * @return bool
 */
function roster_events_application_passwords( $is_available, $user ) {
	return $is_available && ! get_user_meta( $user->ID, ROSTER_EVENTS_SUSPENDED, true );
}

/**
 * Handles the creation of a user.
 *
 * @param int $id The user.
 */
function roster_events_registered( $id ) {
	// Only callers who can create users get here. The header applies to the users that this request creates.
	$is_rest = defined( 'REST_REQUEST' ) && REST_REQUEST;
	if ( $is_rest && isset( $_SERVER['HTTP_X_ROSTER_QUIET'] ) && '1' === $_SERVER['HTTP_X_ROSTER_QUIET'] ) {
		roster_events_touched( $id, 'quiet' );
		return;
	}
	roster_events_touched( $id, 'register' );
}

/**
 * Handles a change of a user.
 *
 * @param int $id The user.
 */
function roster_events_updated( $id ) {
	roster_events_touched( $id, 'update' );
}

/**
 * Handles a change of a user's roles. The hook can run in the middle of a change, so its other arguments are ignored.
 *
 * @param int $id The user.
 */
function roster_events_role( $id ) {
	roster_events_touched( $id, 'role' );
}

/**
 * Handles the deletion of a user.
 *
 * @param int $id The user.
 */
function roster_events_deleted( $id ) {
	roster_events_touched( $id, 'delete' );
}

/**
 * Collects the users that this request changes.
 *
 * @param int|null $id    The user; null adds none.
 * @param string   $event The event.
 * @return string[] The event with the highest weight, by user.
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

/** At the end of a request, adds its users to the queue and sends a first message. */
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
		// The visitor already has the page, so waiting for Roster's answer delays nobody.
		fastcgi_finish_request();
		roster_events_send_queue();
		return;
	}
	roster_events_send( array_slice( $touched, 0, ROSTER_EVENTS_USERS_AT_ONCE, true ), false );
}

/**
 * Adds users to the queue. If two requests do this at the same moment, an entry can get lost: the comparison finds it.
 *
 * @param string[] $touched Events by user.
 */
function roster_events_keep( $touched ) {
	$queue = roster_events_queue();
	// The newest entries stay: the comparison finds those that are dropped.
	$users          = array_slice( $touched + $queue['users'], 0, ROSTER_EVENTS_USERS_MAXIMUM, true );
	$queue['users'] = $users;
	update_option( ROSTER_EVENTS_OPTION, $queue, false );
}

/**
 * Returns the queue of what Roster has not accepted yet: events by user, and the number of failed attempts.
 *
 * @return array
 */
function roster_events_queue() {
	// Another request can have changed the queue since this one began.
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

/** Sends entries of the queue, and removes them if Roster accepts them. */
function roster_events_send_queue() {
	$queue = roster_events_queue();
	if ( array() === $queue['users'] || ! roster_events_is_set_up() ) {
		return;
	}
	$sent     = array_slice( $queue['users'], 0, ROSTER_EVENTS_USERS_AT_ONCE, true );
	$is_taken = roster_events_send( $sent, true );

	// Other requests can have changed the queue meanwhile: a user with another event since then is sent again.
	$queue = roster_events_queue();
	$tries = $is_taken ? 0 : (int) $queue['tries'] + 1;
	if ( $is_taken || ROSTER_EVENTS_TRIES <= $tries ) {
		$queue['users'] = array_diff_assoc( $queue['users'], $sent );
	}
	if ( ! $is_taken && ROSTER_EVENTS_TRIES <= $tries ) {
		// phpcs:ignore WordPress.PHP.DevelopmentFunctions.error_log_error_log
		error_log( 'Roster events: gave up sending ' . count( $sent ) . ' users; run `roster sync wordpress`.' );
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
 * Sends one message.
 *
 * @param string[] $touched  Events by user.
 * @param bool     $is_heard Whether to wait for the answer.
 * @return bool Whether Roster accepted it; false without waiting.
 */
function roster_events_send( $touched, $is_heard ) {
	$users = array();
	foreach ( $touched as $id => $event ) {
		$users[] = roster_events_user( (int) $id, $event );
	}
	$body = wp_json_encode(
		array(
			// The option, because home_url() can differ by scheme and, with some plugins, by language.
			'site'     => untrailingslashit( get_option( 'home' ) ),
			// Makes two messages with the same content in one second distinct.
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
 * Returns the current data of a user, independent of the event.
 *
 * @param int    $id    The user.
 * @param string $event The event.
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
 * Returns the seconds until the next attempt.
 *
 * @param int $tries Failed attempts.
 * @return int
 */
function roster_events_wait( $tries ) {
	// Tests set a shorter wait.
	$first = defined( 'ROSTER_EVENTS_RETRY_SECONDS' ) ? (int) ROSTER_EVENTS_RETRY_SECONDS : ROSTER_EVENTS_WAIT;
	return (int) min( ROSTER_EVENTS_WAIT_MAXIMUM, $first * pow( 2, min( $tries, 10 ) ) );
}

/**
 * Whether both constants are defined and the key is long enough.
 *
 * @return bool
 */
function roster_events_is_set_up() {
	return defined( 'ROSTER_EVENTS_URL' ) && is_string( ROSTER_EVENTS_URL ) && '' !== ROSTER_EVENTS_URL
		&& defined( 'ROSTER_EVENTS_KEY' ) && is_string( ROSTER_EVENTS_KEY )
		&& strlen( ROSTER_EVENTS_KEY ) >= ROSTER_EVENTS_KEY_MINIMUM;
}
