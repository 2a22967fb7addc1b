# The frames of the viewport "View" go through velatura before the screen shows them. The label is drawn
# after that, and stays crisp.
extends Node

var native = GDNative.new()
var client = 0
var shown = ImageTexture.new()
var wanted = int(OS.get_environment("VELATURA_FRAMES"))
var done = 0
var passed = 0


func velatura(what, arguments):
	return native.call_native("standard_varcall", "velatura_" + what, arguments)


func _ready():
	native.library = load("res://velatura.gdnlib")
	if native.initialize():
		client = velatura("start", [OS.get_environment("VELATURA_NAME").to_utf8()])
	if client == 0:
		printerr("the library cannot be loaded, or VELATURA_NAME is no name")
		get_tree().quit(2)
	else:
		$Screen.texture = shown
		VisualServer.connect("frame_post_draw", self, "_drawn")


func _process(delta):
	for i in $View/Turning.get_child_count():
		$View/Turning.get_child(i).rotate_y(delta * (0.5 + 0.3 * i))


func _drawn():
	# What Godot drew, through the models, and into the texture that covers the screen.
	var image = $View.get_texture().get_data()
	var size = [image.get_width(), image.get_height()]
	image.convert(Image.FORMAT_RGBA8)
	var bytes = velatura("show", [client, image.get_data()] + size)
	var made = Image.new()
	made.create_from_data(size[0], size[1], false, Image.FORMAT_RGBA8, bytes)
	shown.create_from_image(made, Texture.FLAG_FILTER)
	if velatura("status_of", [client]) == 1:
		done += 1
	else:
		passed += 1
	if done >= wanted or passed > 1000:
		VisualServer.disconnect("frame_post_draw", self, "_drawn")
		finish(image)


func finish(image):
	# Two frames on, the screen shows the last texture.
	yield(VisualServer, "frame_post_draw")
	yield(VisualServer, "frame_post_draw")
	var screen = get_viewport().get_texture().get_data()
	image.flip_y()
	screen.flip_y()
	image.save_png(OS.get_environment("VELATURA_BEFORE"))
	screen.save_png(OS.get_environment("VELATURA_AFTER"))
	velatura("stop", [client])
	native.terminate()
	print("%d frames done, %d passed" % [done, passed])
	get_tree().quit(0 if done >= wanted else 1)
